import equivcheck

TestFaster = equivcheck.suite(
    "equivcheck.gpt:GPT",
    "speedup:faster",
    dtypes=["float32"],
    checks=["interface", "checkpoint"],
)
