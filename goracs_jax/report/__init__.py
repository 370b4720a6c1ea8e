"""Pictures and tables of selections."""
