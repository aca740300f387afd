import equivcheck

TestTiled = equivcheck.suite("kernel:plain", "kernel:tiled", dtypes=["float32"], checks=["output", "gradients"])
