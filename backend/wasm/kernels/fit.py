import numpy as np, mpmath as mp
from scipy.special import erfcx
from scipy.optimize import linprog
# h(t)=0.5*erfc(t/sqrt2) = exp(-t^2/2) * R(t), R=0.5*erfcx(t/sqrt2). poly in u=1/(1+p t)
def fit(p,deg,T=14.0):
    u=np.cos(np.linspace(0,np.pi,4001))*0.5+0.5
    umin=1/(1+p*T)
    u=umin+(1-umin)*u
    t=(1/u-1)/p
    R=0.5*erfcx(t/np.sqrt(2))
    # relative minimax by LP; no constant term => R/u poly; R->0 as u->0
    V=np.vander(u,deg+1,increasing=True)*u[:,None]
    A=V/R[:,None]
    n=deg+1
    c=np.zeros(n+1);c[-1]=1
    Aub=np.vstack([np.hstack([A,-np.ones((len(u),1))]),np.hstack([-A,-np.ones((len(u),1))])])
    b=np.concatenate([np.ones(len(u)),-np.ones(len(u))])
    r=linprog(c,A_ub=Aub,b_ub=b,bounds=[(None,None)]*n+[(0,None)],method='highs')
    return r.x[:-1],r.x[-1]
best=None
for p in [0.2,0.25,0.2316419,0.3,0.35,0.4]:
    for deg in [6,7,8]:
        c,e=fit(p,deg)
        print(p,deg,e)
