"""One module an API: how its vendors are asked, and what they promise."""
