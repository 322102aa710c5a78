"""Configuration that every mixture shares: how many components, and which a step samples."""

from pydantic import BaseModel, ConfigDict, Field, model_validator

from vbpi_mix.objectives.estimators import Estimator, check_sizes


class ComponentsConfig(BaseModel):
    """Numbers of components and the estimator of the mixture's bound."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    components: int = Field(1, ge=1)
    """Mixture components, A."""
    sampled: int | None = Field(None, ge=1)
    """Components drawn in a step, S; by default all of them for a2a, one otherwise."""
    estimator: Estimator = Estimator.A2A
    """Estimator of the mixture's bound."""

    @model_validator(mode="after")
    def _sampled_components(self) -> "ComponentsConfig":
        if self.num_sampled > self.components:
            raise ValueError(
                f"expected sampled (--sampled) to be at most the number of components, got {self.sampled} of "
                f"{self.components}: components are drawn without replacement; lower it, or raise "
                "components (--components)"
            )
        check_sizes(self.estimator, self.components, self.num_sampled)
        return self

    @property
    def num_sampled(self) -> int:
        """Components drawn in a step, S."""
        if self.sampled is not None:
            return self.sampled
        return self.components if self.estimator is Estimator.A2A else 1
