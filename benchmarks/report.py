from benchmarks.measure import Results
from statistics import median
def text(r: Results) -> str:
    out=[str(r.facts)]
    for t, f in r.samples.items():
        out.append(t)
        for n,v in f.items(): out.append(f"   {n:20} {median(v):.6g}")
    out.append(str(r.failures))
    return "\n".join(out)
