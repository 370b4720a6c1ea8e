"""The three stages of the search: greedy, annealing, group exchange."""
