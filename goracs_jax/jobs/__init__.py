"""The work of the verbs: functions from checked inputs and a configuration to results.

A verb parses its flags, calls one of these and saves the result. `compare` calls the
same functions and passes their results on.
"""
