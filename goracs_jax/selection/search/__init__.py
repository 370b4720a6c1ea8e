"""The stages of the search: greedy, prices, group exchange, annealing."""
