"""Programs that are compiled before there are devices or numbers for them."""
