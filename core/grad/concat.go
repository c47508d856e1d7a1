package grad

import "fmt"

// Columns returns n columns from each of groups equal parts of x's columns, starting at column at of a part: with one group a slice of
// columns, with one group per head the queries of an interleaved product.
func (c *Ctx) Columns(x *Value, groups, at, n int) *Value {
	if groups <= 0 || x.Cols%groups != 0 || at < 0 || at+n > x.Cols/groups {
		panic(fmt.Sprintf("grad.Columns: %d columns at %d of %d groups in %d", n, at, groups, x.Cols))
	}
	part, rows := x.Cols/groups, x.Rows*groups
	y := c.New(x.Rows, groups*n)
	for r := range rows {
		copy(y.Data[r*n:(r+1)*n], x.Data[r*part+at:])
	}
	if c.tracks(x, nil) {
		c.push(y, func() {
			dx := c.GradOf(x)
			for r := range rows {
				d := dx[r*part+at : r*part+at+n]
				for i, g := range y.Grad[r*n : (r+1)*n] {
					d[i] += g
				}
			}
		})
	}
	return y
}

// ConcatColumns puts values of equal row counts side by side.
func (c *Ctx) ConcatColumns(vs ...*Value) *Value {
	cols, tracked := 0, false
	for _, v := range vs {
		if v.Rows != vs[0].Rows {
			panic(fmt.Sprintf("grad.ConcatColumns: %d and %d rows", vs[0].Rows, v.Rows))
		}
		cols, tracked = cols+v.Cols, tracked || c.tracks(v, nil)
	}
	y := c.New(vs[0].Rows, cols)
	at := 0
	for _, v := range vs {
		for r := range v.Rows {
			copy(y.Data[r*cols+at:], row(v.Data, r, v.Cols))
		}
		at += v.Cols
	}
	if tracked {
		c.push(y, func() {
			at := 0
			for _, v := range vs {
				if d := c.GradOf(v); d != nil {
					for r := range v.Rows {
						g := y.Grad[r*cols+at:]
						for i := range v.Cols {
							d[r*v.Cols+i] += g[i]
						}
					}
				}
				at += v.Cols
			}
		})
	}
	return y
}

// ConcatRows stacks values of equal column counts.
func (c *Ctx) ConcatRows(vs ...*Value) *Value {
	rows, tracked := 0, false
	for _, v := range vs {
		if v.Cols != vs[0].Cols {
			panic(fmt.Sprintf("grad.ConcatRows: %d and %d columns", vs[0].Cols, v.Cols))
		}
		rows, tracked = rows+v.Rows, tracked || c.tracks(v, nil)
	}
	y := c.New(rows, vs[0].Cols)
	at := 0
	for _, v := range vs {
		at += copy(y.Data[at:], v.Data)
	}
	if tracked {
		c.push(y, func() {
			at := 0
			for _, v := range vs {
				c.addGrad(v, 1, y.Grad[at:at+len(v.Data)])
				at += len(v.Data)
			}
		})
	}
	return y
}

// SliceRows returns rows [from, to) of x.
func (c *Ctx) SliceRows(x *Value, from, to int) *Value {
	y := c.wrap(x.Data[from*x.Cols:to*x.Cols], to-from, x.Cols)
	if c.tracks(x, nil) {
		c.push(y, func() {
			d := c.GradOf(x)[from*x.Cols : to*x.Cols]
			c.K.Add(d, d, y.Grad)
		})
	}
	return y
}

// Prefix puts the rows of p before the rows of each sequence of x: [sequences·p.Rows + x.Rows, Cols].
func (c *Ctx) Prefix(p, x *Value, offsets []int32) *Value {
	if p.Cols != x.Cols {
		panic(fmt.Sprintf("grad.Prefix: %d and %d columns", p.Cols, x.Cols))
	}
	n := len(offsets) - 1
	y := c.New(n*p.Rows+x.Rows, x.Cols)
	at := 0
	for s := range n {
		at += copy(y.Data[at:], p.Data)
		at += copy(y.Data[at:], x.Data[int(offsets[s])*x.Cols:int(offsets[s+1])*x.Cols])
	}
	if c.tracks(p, x) {
		c.push(y, func() {
			dp, dx := c.GradOf(p), c.GradOf(x)
			at := 0
			for s := range n {
				if dp != nil {
					c.K.Add(dp, dp, y.Grad[at:at+len(dp)])
				}
				at += len(p.Data)
				lo, hi := int(offsets[s])*x.Cols, int(offsets[s+1])*x.Cols
				if dx != nil {
					c.K.Add(dx[lo:hi], dx[lo:hi], y.Grad[at:at+hi-lo])
				}
				at += hi - lo
			}
		})
	}
	return y
}
