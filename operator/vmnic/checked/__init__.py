"""Bounded readers of foreign input.

Foreign input is text that tenants, agents, other operators or files supply. Each reader checks length, depth or range
before it calls C code or does arithmetic. An input at the bounds takes at most 50 ms (`tests/unit/checked`).
"""
