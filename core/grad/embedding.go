package grad

import (
	"fmt"

	"github.com/temper-ml/temper/core/tensor"
)

// Embedding returns rows ids of table [n, cols]. Each id must lie in [0, n).
func (c *Ctx) Embedding(table *Param, ids []int32) *Value {
	n, cols := table.T.Rows(), table.T.Cols()
	for _, id := range ids {
		if id < 0 || int(id) >= n {
			panic(fmt.Sprintf("grad.Embedding: row %d of %s, which has %d", id, table.Name, n))
		}
	}
	y := c.New(len(ids), cols)
	if v := table.resident(); v != nil {
		c.K.Gather(y.Data, v, ids, cols, false)
	} else {
		// Rows of a compressed or half-width table are expanded one by one; the table itself stays as it is.
		stride := table.T.DType.RowBytes(cols)
		for i, id := range ids {
			row := tensor.Tensor{Name: table.Name, DType: table.T.DType, Shape: []int{cols}, Data: table.T.Data[int(id)*stride : (int(id)+1)*stride]}
			if table.T.Scales != nil {
				row.Scales = table.T.Scales[id : id+1]
			}
			expand(y.Data[i*cols:(i+1)*cols], row)
		}
	}
	if table.Trainable() && c.Recording() {
		c.push(y, func() { c.K.ScatterAdd(table.Grad, y.Grad, ids, cols) })
	}
	return y
}

// Rows returns rows ids of x: the first token of each sequence, the last one, the tokens that count.
func (c *Ctx) Rows(x *Value, ids []int32) *Value {
	for _, id := range ids {
		if id < 0 || int(id) >= x.Rows {
			panic(fmt.Sprintf("grad.Rows: row %d of %d", id, x.Rows))
		}
	}
	y := c.New(len(ids), x.Cols)
	c.K.Gather(y.Data, x.Data, ids, x.Cols, false)
	if c.tracks(x, nil) {
		c.push(y, func() { c.K.ScatterAdd(c.GradOf(x), y.Grad, ids, x.Cols) })
	}
	return y
}
