package chart_test

import (
	"encoding/xml"
	"io"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/core/chart"
)

func TestSVG(t *testing.T) {
	line := chart.Series{Name: "a & b", X: []float64{1, 10, 100}, Y: []float64{3, 2, 1}, Dots: true}
	for name, c := range map[string]chart.Chart{
		"linear":   {Title: "loss <nats>", Series: []chart.Series{line}},
		"log":      {LogX: true, LogY: true, Series: []chart.Series{line, {Name: "zeros are left out", X: []float64{0, 10}, Y: []float64{1, 2}}}},
		"constant": {Series: []chart.Series{{X: []float64{5}, Y: []float64{7}}}},
		"gaps":     {Series: []chart.Series{{X: []float64{1, 2, 3}, Y: []float64{1, math.NaN(), 2}}}},
	} {
		t.Run(name, func(t *testing.T) {
			svg, err := c.SVG()
			require.NoError(t, err)
			assert.NotContains(t, string(svg), "NaN")
			assert.NotContains(t, string(svg), "Inf")
			d := xml.NewDecoder(strings.NewReader(string(svg)))
			texts := 0
			for {
				tok, err := d.Token()
				if err == io.EOF {
					break
				}
				require.NoError(t, err)
				if e, ok := tok.(xml.StartElement); ok && e.Name.Local == "text" {
					texts++
				}
			}
			assert.Greater(t, texts, 4, "ticks and labels")
		})
	}
}

func TestSVGRefuses(t *testing.T) {
	for name, c := range map[string]chart.Chart{
		"nothing":    {},
		"lengths":    {Series: []chart.Series{{Name: "s", X: []float64{1}}}},
		"no numbers": {Series: []chart.Series{{X: []float64{1}, Y: []float64{math.NaN()}}}},
		"log of 0":   {LogX: true, Series: []chart.Series{{X: []float64{0}, Y: []float64{1}}}},
	} {
		_, err := c.SVG()
		assert.ErrorContains(t, err, "chart: ", name)
	}
}
