// Package chart draws lines over two axes as SVG: loss curves and costs. It is for pictures in folders and documents, without scripts.
package chart

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"math"
	"strconv"
)

// Series is one line, or single points.
type Series struct {
	Name string
	X, Y []float64
	// Dots draws a point at each value beside the line.
	Dots bool
}

// Chart is a picture of some series over common axes.
type Chart struct {
	Title, XLabel, YLabel string
	// LogX and LogY draw powers of ten at equal distances; values of zero and below are left out.
	LogX, LogY bool
	Series     []Series
}

const (
	width, height            = 720, 420
	left, right, top, bottom = 70, 20, 40, 50
	plotWidth, plotHeight    = width - left - right, height - top - bottom
)

var colours = []string{"#2563eb", "#dc2626", "#059669", "#d97706", "#7c3aed", "#0891b2", "#be185d", "#4b5563"}

// axis maps values to places between 0 and 1.
type axis struct {
	log    bool
	lo, hi float64 // logarithms where log is set
}

func (a *axis) value(v float64) float64 {
	if a.log {
		return math.Log10(v)
	}
	return v
}

func (a *axis) drawable(v float64) bool {
	return !math.IsNaN(v) && !math.IsInf(v, 0) && (!a.log || v > 0)
}

func (a *axis) at(v float64) float64 { return (a.value(v) - a.lo) / (a.hi - a.lo) }

// ticks are the marked values: powers of ten, or round steps.
func (a *axis) ticks() []float64 {
	var out []float64
	if a.log {
		every := max(1, math.Ceil((a.hi-a.lo)/8))
		for e := math.Ceil(a.lo - 1e-9); e <= a.hi+1e-9; e += every {
			out = append(out, math.Pow(10, e))
		}
		return out
	}
	step := math.Pow(10, math.Floor(math.Log10((a.hi-a.lo)/4)))
	for _, f := range []float64{5, 2} {
		if (a.hi-a.lo)/(step*f) >= 4 {
			step *= f
			break
		}
	}
	for v := math.Ceil(a.lo/step-1e-9) * step; v <= a.hi+step*1e-9; v += step {
		out = append(out, math.Round(v/step)*step)
	}
	return out
}

// fit makes the axis span the values, with a little room.
func (a *axis) fit(values func(yield func(float64))) bool {
	a.lo, a.hi = math.Inf(1), math.Inf(-1)
	values(func(v float64) {
		if a.drawable(v) {
			a.lo, a.hi = min(a.lo, a.value(v)), max(a.hi, a.value(v))
		}
	})
	if a.lo > a.hi {
		return false
	}
	if a.hi-a.lo < 1e-12*max(1, math.Abs(a.hi)) {
		a.lo, a.hi = a.lo-0.5, a.hi+0.5
	}
	return true
}

// SVG draws the chart. Series need as many X as Y.
func (c Chart) SVG() ([]byte, error) {
	if len(c.Series) == 0 {
		return nil, errors.New("chart: no series")
	}
	for _, s := range c.Series {
		if len(s.X) != len(s.Y) {
			return nil, fmt.Errorf("chart: series %q: %d x, %d y", s.Name, len(s.X), len(s.Y))
		}
	}
	x, y := axis{log: c.LogX}, axis{log: c.LogY}
	each := func(pick func(Series) []float64) func(func(float64)) {
		return func(yield func(float64)) {
			for _, s := range c.Series {
				for i, v := range pick(s) {
					if x.drawable(s.X[i]) && y.drawable(s.Y[i]) {
						yield(v)
					}
				}
			}
		}
	}
	if !x.fit(each(func(s Series) []float64 { return s.X })) || !y.fit(each(func(s Series) []float64 { return s.Y })) {
		return nil, errors.New("chart: no value to draw")
	}
	room := (y.hi - y.lo) * 0.05
	y.lo, y.hi = y.lo-room, y.hi+room
	px := func(v float64) float64 { return left + x.at(v)*plotWidth }
	py := func(v float64) float64 { return top + (1-y.at(v))*plotHeight }

	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" font-family="system-ui,sans-serif" font-size="12" role="img">`+"\n",
		width, height, width, height)
	fmt.Fprintf(&b, "<title>%s</title>\n<rect width=\"%d\" height=\"%d\" fill=\"#fff\"/>\n", escape(c.Title), width, height)
	text := func(x, y float64, anchor, more, s string) {
		fmt.Fprintf(&b, `<text x="%.1f" y="%.1f" text-anchor="%s" fill="#111"%s>%s</text>`+"\n", x, y, anchor, more, escape(s))
	}
	text(width/2, 22, "middle", ` font-size="15"`, c.Title)
	text(left+plotWidth/2, height-12, "middle", "", c.XLabel)
	text(16, top+plotHeight/2, "middle", fmt.Sprintf(` transform="rotate(-90 16 %d)"`, top+plotHeight/2), c.YLabel)
	for _, v := range x.ticks() {
		fmt.Fprintf(&b, `<path d="M%.1f %dV%d" stroke="#e5e7eb"/>`+"\n", px(v), top, top+plotHeight)
		text(px(v), top+plotHeight+18, "middle", "", number(v))
	}
	for _, v := range y.ticks() {
		fmt.Fprintf(&b, `<path d="M%d %.1fH%d" stroke="#e5e7eb"/>`+"\n", left, py(v), left+plotWidth)
		text(left-8, py(v)+4, "end", "", number(v))
	}
	fmt.Fprintf(&b, `<path d="M%d %dV%dH%d" fill="none" stroke="#6b7280"/>`+"\n", left, top, top+plotHeight, left+plotWidth)
	for i, s := range c.Series {
		colour := colours[i%len(colours)]
		var path, dots bytes.Buffer
		pen := "M"
		for j := range s.X {
			if !x.drawable(s.X[j]) || !y.drawable(s.Y[j]) {
				pen = "M"
				continue
			}
			fmt.Fprintf(&path, "%s%.1f %.1f", pen, px(s.X[j]), py(s.Y[j]))
			pen = "L"
			if s.Dots {
				fmt.Fprintf(&dots, `<circle cx="%.1f" cy="%.1f" r="3" fill="%s"/>`+"\n", px(s.X[j]), py(s.Y[j]), colour)
			}
		}
		if path.Len() > 0 {
			fmt.Fprintf(&b, `<path d="%s" fill="none" stroke="%s" stroke-width="1.8"/>`+"\n", path.Bytes(), colour)
		}
		b.Write(dots.Bytes())
		ly := float64(top + 14 + 18*i)
		fmt.Fprintf(&b, `<path d="M%d %.1fh18" stroke="%s" stroke-width="3"/>`+"\n", width-right-190, ly-4, colour)
		text(width-right-166, ly, "start", "", s.Name)
	}
	b.WriteString("</svg>\n")
	return b.Bytes(), nil
}

func escape(s string) string {
	var b bytes.Buffer
	_ = xml.EscapeText(&b, []byte(s)) // a buffer takes everything
	return b.String()
}

// number writes a tick: thousands and millions short.
func number(v float64) string {
	a := math.Abs(v)
	short := func(unit float64, name string) string { return strconv.FormatFloat(v/unit, 'g', 4, 64) + name }
	switch {
	case a >= 1e12:
		return strconv.FormatFloat(v, 'e', 0, 64)
	case a >= 1e9:
		return short(1e9, " G")
	case a >= 1e6:
		return short(1e6, " M")
	case a >= 1e4:
		return short(1e3, " k")
	}
	return strconv.FormatFloat(v, 'g', 4, 64)
}
