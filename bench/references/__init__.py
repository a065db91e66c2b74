"""How people fine-tune today, one script a competitor: what `bench/` measures Headstart against."""
