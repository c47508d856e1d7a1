"""Fits the coefficients of functions.h: least maximum of the relative error, by reweighted least squares. Needs numpy and scipy."""
import numpy as np
from scipy.special import erfcx


def grid(lo, hi, n=3000):
    return np.cos(np.linspace(0, np.pi, n)) * (hi - lo) / 2 + (hi + lo) / 2


def polynomial(f, lo, hi, degree, rounds=60):
    x = grid(lo, hi)
    y = f(x)
    a, lw, best = np.vander(x, degree + 1, increasing=True), np.ones_like(x), None
    for _ in range(rounds):
        c = np.linalg.lstsq(a * (lw / y)[:, None], lw, rcond=None)[0]
        e = np.abs(a @ c / y - 1)
        if best is None or e.max() < best[0]:
            best = e.max(), c
        lw *= np.sqrt(0.1 + e / e.max())
        lw /= lw.max()
    return best


def rational(g, lo, hi, p, q, rounds=200):
    t = grid(lo, hi)
    y = g(t)
    lw, den, best = np.ones_like(t), np.ones_like(t), None
    vp, vq = np.vander(t, p + 1, increasing=True), np.vander(t, q + 1, increasing=True)[:, 1:]
    for _ in range(rounds):
        w = (lw / y / np.abs(den))[:, None]
        a = np.hstack([vp, -y[:, None] * vq]) * w
        scale = np.linalg.norm(a, axis=0)
        c = np.linalg.lstsq(a / scale, y * w[:, 0], rcond=None)[0] / scale
        den = 1 + vq @ c[p + 1:]
        e = np.abs(vp @ c[:p + 1] / den / y - 1)
        if best is None or e.max() < best[0]:
            best = e.max(), c[:p + 1], np.r_[1, c[p + 1:]]
        lw *= (0.05 + e / e.max()) ** 0.3
        lw /= lw.max()
    return best


def show(name, error, *coefficients):
    print(name, "%.2g" % error)
    for c in coefficients:
        print("  ", ", ".join("%.9ef" % np.float32(v) for v in c))


show("exp on ±ln2/2", *polynomial(np.exp, -0.3467, 0.3467, 6))
show("tanh(√t)/√t on [0, 81]", *rational(lambda t: np.tanh(np.sqrt(t + 1e-12)) / np.sqrt(t + 1e-12), 1e-9, 81, 5, 4))
# The normal tail: erfc(x/√2)/2 = exp(-x²/2)·u·P(u), u = 1/(1+px), x in [0, 14].
best = min((polynomial(lambda u: 0.5 * erfcx((1 / u - 1) / p / np.sqrt(2)) / u, 1 / (1 + 14 * p), 1, 8) + (p,) for p in np.arange(0.14, 0.6, 0.02)), key=lambda b: b[0])
show("normal tail, p = %.2f" % best[2], best[0], best[1])
