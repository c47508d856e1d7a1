package grad

import "fmt"

func sameShape(op string, a, b *Value) {
	if a.Rows != b.Rows || a.Cols != b.Cols {
		panic(fmt.Sprintf("grad.%s: shapes %dx%d and %dx%d differ", op, a.Rows, a.Cols, b.Rows, b.Cols))
	}
}

func rowShape(op string, x, v *Value) {
	if v.Rows != 1 || v.Cols != x.Cols {
		panic(fmt.Sprintf("grad.%s: want a row of %d, got %dx%d", op, x.Cols, v.Rows, v.Cols))
	}
}

// Reshape views x as rows×cols with the same number of elements; the data is shared with x.
func (c *Ctx) Reshape(x *Value, rows, cols int) *Value {
	if rows*cols != len(x.Data) {
		panic(fmt.Sprintf("grad.Reshape: %dx%d as %dx%d", x.Rows, x.Cols, rows, cols))
	}
	y := c.wrap(x.Data, rows, cols)
	if c.tracks(x, nil) {
		c.push(y, func() { c.addGrad(x, 1, y.Grad) })
	}
	return y
}
