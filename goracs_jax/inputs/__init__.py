"""The one room that opens files of data: unpacks, decodes and parses what users have.

What a file is follows from its content: how it is packed, its encoding, and whether it
is JSON, separated text or a table of columns. Names of files decide nothing that the
content tells.
"""
