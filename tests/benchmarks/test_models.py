"""The comparison of estimated models with MrBayes: its commands, its files, what stands side by side."""

import models
import numpy as np
import pytest


@pytest.mark.parametrize(
    ("name", "lset", "prset"),
    [
        ("JC", "nst=1 rates=equal;", "statefreqpr=fixed(equal) brlenspr"),
        ("HKY+FO", "nst=2 rates=equal;", "tratiopr=beta(1.0,1.0) statefreqpr=dirichlet(1,1,1,1)"),
        ("GTR+FO+G4", "nst=6 rates=gamma ngammacat=4;", "shapepr=exponential(1.0)"),
        ("SYM+I+G8", "nst=6 rates=invgamma ngammacat=8;", "pinvarpr=uniform(0.0,1.0)"),
        ("K80+I", "nst=2 rates=propinv;", "statefreqpr=fixed(equal) tratiopr=beta(1.0,1.0)"),
    ],
)
def test_models_in_the_words_of_mrbayes(name, lset, prset):
    first, second = models.mrbayes_model(name).splitlines()
    assert first == f"lset {lset}"
    assert prset in second
    assert second.endswith("brlenspr=unconstrained:exp(10.0);")


@pytest.mark.parametrize("name", ["HKY+F", "TN+FO", "HKY{2}+FO", "K80+G4{0.5}"])
def test_models_that_mrbayes_does_not_estimate_alike_are_refused(name):
    with pytest.raises(SystemExit, match=name.split("+")[0].split("{")[0]):
        models.mrbayes_model(name)


def test_parameters_come_without_burn_in(tmp_path):
    path = tmp_path / "chain.run1.p"
    rows = "\n".join(f"{i}\t{-i}\t{i / 10}" for i in range(8))
    path.write_text(f"[ID: 1]\nGen\tLnL\talpha{{all}}\n{rows}\n")
    found = models.read_parameters(path)
    assert [*found] == ["Gen", "LnL", "alpha"]
    np.testing.assert_allclose(found["alpha"], np.arange(2, 8) / 10)


def test_differences_are_in_units_of_mrbayes_deviations():
    one = {"mean": 2.0, "sd": 0.5, "hpd95": [1.0, 3.0]}
    ours = {"parameters": {"kappa": one}, "splits": {"0,1": 0.9, "0,2": 0.05}}
    theirs = {
        "parameters": {"kappa": {"mean": 1.5, "sd": 1.0, "difference_of_runs": 0.1}, "LnL": {}},
        "splits": {"0,1": 0.85},
        "largest_difference_of_runs": 0.02,
        "num_samples": 10,
    }
    found = models.side_by_side(ours, theirs)
    assert found["parameters"]["kappa"]["difference_in_sds"] == 0.5
    assert found["parameters"]["kappa"]["ratio_of_sds"] == 0.5
    assert [*found["splits"]] == ["0,1"]
    assert found["largest_difference_of_splits"] == pytest.approx(0.05)
