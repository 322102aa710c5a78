import numpy as np

from vbpi_mix.seeding import STREAMS, RandomStreams


def test_the_position_of_a_stream_seeds_it():
    # Streams added later must not change the draws of earlier ones, nor results of old seeds.
    streams = RandomStreams.from_seed(7)
    for position, name in enumerate(
        ("initialisation", "topologies", "branch_lengths", "component_choice", "evaluation")
    ):
        alone = np.random.Generator(np.random.PCG64(np.random.SeedSequence(7, spawn_key=(position,))))
        assert getattr(streams, name).random() == alone.random(), name


def test_streams_differ_from_each_other():
    streams = RandomStreams.from_seed(7)
    assert len({getattr(streams, name).random() for name in STREAMS}) == len(STREAMS)


def test_a_state_restores_its_streams_and_leaves_newer_ones():
    streams = RandomStreams.from_seed(7)
    streams.topologies.random(3)
    state = streams.state()
    expected = streams.topologies.random(2).tolist()
    del state["commands"]  # as a program that did not have it would have saved
    restored = RandomStreams.from_seed(7)
    restored.restore(state)
    assert restored.topologies.random(2).tolist() == expected
    assert restored.commands.random() == RandomStreams.from_seed(7).commands.random()
