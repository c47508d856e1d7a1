package pretrain

import (
	"fmt"

	"github.com/temper-ml/temper/core/chart"
)

// SVG draws the learning curve: training loss and held-out loss over the tokens seen.
func (l Log) SVG(title string) ([]byte, error) {
	training := chart.Series{Name: "training"}
	for _, p := range l.Curve {
		training.X, training.Y = append(training.X, float64(p.Tokens)), append(training.Y, p.Loss)
	}
	c := chart.Chart{Title: title, XLabel: "tokens", YLabel: "loss (nats a token)", Series: []chart.Series{training}}
	if n := len(l.Curve); n > 0 && len(l.Evals) > 0 {
		perStep := float64(l.Curve[n-1].Tokens) / float64(l.Curve[n-1].Step) // rows have one length
		held := chart.Series{Name: "held out", Dots: true}
		for _, e := range l.Evals {
			held.X, held.Y = append(held.X, perStep*float64(e.Step)), append(held.Y, e.Loss)
		}
		last := l.Evals[len(l.Evals)-1]
		held.Name = fmt.Sprintf("held out (%.3f)", last.Loss)
		if last.BitsPerByte > 0 {
			held.Name = fmt.Sprintf("held out (%.3f bits a byte)", last.BitsPerByte)
		}
		c.Series = append(c.Series, held)
	}
	return c.SVG()
}
