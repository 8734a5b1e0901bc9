"""Seconds a step of real trainers with our scorer and with the one-at-a-time way; `python -m bench.trainers`.

A trainer is a module here, named as its framework, with `train(way, work, steps) -> list[Step]`: it runs the steps of
`work` (whose completions are fixed, so that all ways score the same) with the rewards of `way`.
"""
