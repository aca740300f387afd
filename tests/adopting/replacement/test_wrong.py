import equivcheck

TestFasterWrong = equivcheck.suite(
    "equivcheck.gpt:GPT",
    "speedup:faster_wrong",
    dtypes=["float32"],
    checks=["logits"],
)
