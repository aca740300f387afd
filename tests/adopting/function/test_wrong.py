import equivcheck

TestTiledWrong = equivcheck.suite("kernel:plain", "kernel:tiled_wrong", dtypes=["float32"], checks=["output"])
