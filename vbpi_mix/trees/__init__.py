"""Topologies as arrays; reading, writing, enumerating and summarising trees."""
