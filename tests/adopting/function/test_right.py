import equivcheck

TestTiled = equivcheck.suite("kernel:plain", "kernel:tiled", dtypes=["float32", "bfloat16"], exclude=["bias", "long"])
