package report

import (
	"encoding/xml"
	"fmt"
	"math"
	"strings"
)

// palette of series, told apart also without colour by their order.
var palette = []string{"#1f6feb", "#d1761f", "#8250df", "#6e7781"}

// Bars are groups of bars on a logarithmic axis, one bar of each series in a group.
type Bars struct {
	Title, Unit string
	Groups      []string
	Series      []Series
	// Format of a value as a label.
	Format func(float64) string
}

// Series has a value for each group, or point; NaN is none.
type Series struct {
	Name   string
	Values []float64
}

// drawing is an SVG under construction.
type drawing struct {
	strings.Builder
	width, height int
}

func newDrawing(width, height int, title string) *drawing {
	d := &drawing{width: width, height: height}
	fmt.Fprintf(d, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" font-family="system-ui, sans-serif" font-size="12">`+"\n", width, height, width, height)
	fmt.Fprintf(d, `<title>%s</title>`+"\n", escaped(title))
	fmt.Fprintf(d, `<rect width="%d" height="%d" fill="#ffffff"/>`+"\n", width, height)
	d.text(16, 24, "start", "#1f2328", `font-size="15" font-weight="600"`, title)
	return d
}

func escaped(text string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(text)) // a strings.Builder takes everything
	return b.String()
}

func (d *drawing) text(x, y float64, anchor, fill, more, text string) {
	fmt.Fprintf(d, `<text x="%.1f" y="%.1f" text-anchor="%s" fill="%s" %s>%s</text>`+"\n", x, y, anchor, fill, more, escaped(text))
}

func (d *drawing) line(x1, y1, x2, y2 float64, stroke string) {
	fmt.Fprintf(d, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="%s"/>`+"\n", x1, y1, x2, y2, stroke)
}

// legend below the title.
func (d *drawing) legend(series []Series) {
	x := 16.0
	for i, s := range series {
		fmt.Fprintf(d, `<rect x="%.1f" y="36" width="12" height="12" rx="2" fill="%s"/>`+"\n", x, palette[i%len(palette)])
		d.text(x+17, 46, "start", "#57606a", "", s.Name)
		x += 32 + 6.6*float64(len(s.Name))
	}
}

func (d *drawing) bytes() []byte { return []byte(d.String() + "</svg>\n") }

// SVG is the picture.
func (b Bars) SVG() []byte {
	const left, right, top, bottom, barHeight, gap = 150.0, 90.0, 64.0, 34.0, 17.0, 14.0
	low, high := math.Inf(1), math.Inf(-1)
	for _, s := range b.Series {
		for _, v := range s.Values {
			if v > 0 {
				low, high = math.Min(low, v), math.Max(high, v)
			}
		}
	}
	if math.IsInf(low, 0) {
		low, high = 1, 10
	}
	from, to := math.Floor(math.Log10(low)), math.Ceil(math.Log10(high)+1e-9)
	if math.Log10(low)-from < 0.15 {
		from-- // a bar has a length
	}
	groupHeight := barHeight*float64(len(b.Series)) + gap
	height := top + groupHeight*float64(len(b.Groups)) + bottom
	const width = 760
	d := newDrawing(width, int(height), b.Title)
	d.legend(b.Series)
	at := func(v float64) float64 { return left + (width-left-right)*(math.Log10(v)-from)/(to-from) }
	for e := from; e <= to; e++ {
		x := at(math.Pow(10, e))
		d.line(x, top-4, x, height-bottom, "#d8dee4")
		d.text(x, height-bottom+16, "middle", "#57606a", "", b.Format(math.Pow(10, e)))
	}
	d.text(width-8, height-6, "end", "#57606a", `font-size="11"`, b.Unit+", logarithmic")
	for g, name := range b.Groups {
		y := top + groupHeight*float64(g)
		d.text(left-8, y+groupHeight/2-gap/2+4, "end", "#1f2328", "", name)
		for i, s := range b.Series {
			v := s.Values[g]
			row := y + barHeight*float64(i)
			if math.IsNaN(v) || v <= 0 {
				d.text(left+4, row+12, "start", "#57606a", `font-size="11"`, "–")
				continue
			}
			fmt.Fprintf(d, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" rx="2" fill="%s"/>`+"\n", left, row, math.Max(1, at(v)-left), barHeight-3, palette[i%len(palette)])
			d.text(at(v)+5, row+11, "start", "#1f2328", `font-size="11"`, b.Format(v))
		}
	}
	return d.bytes()
}

// Lines are series over time, on a logarithmic axis.
type Lines struct {
	Title, Unit, Along string
	Series             []Series
	Format             func(float64) string
	// Every is what a point is of, along.
	Every float64
}

// SVG is the picture.
func (l Lines) SVG() []byte {
	const width, height, left, right, top, bottom = 760, 340, 70.0, 20.0, 64.0, 44.0
	low, high, points := math.Inf(1), math.Inf(-1), 2
	for _, s := range l.Series {
		points = max(points, len(s.Values))
		for _, v := range s.Values {
			if v > 0 {
				low, high = math.Min(low, v), math.Max(high, v)
			}
		}
	}
	if math.IsInf(low, 0) {
		low, high = 1, 10
	}
	from, to := math.Floor(math.Log10(low)), math.Ceil(math.Log10(high)+1e-9)
	d := newDrawing(width, height, l.Title)
	d.legend(l.Series)
	x := func(i int) float64 { return left + (width-left-right)*float64(i)/float64(points-1) }
	y := func(v float64) float64 {
		return height - bottom - (height-top-bottom)*(math.Log10(v)-from)/(to-from)
	}
	for e := from; e <= to; e++ {
		v := math.Pow(10, e)
		d.line(left, y(v), width-right, y(v), "#d8dee4")
		d.text(left-6, y(v)+4, "end", "#57606a", "", l.Format(v))
	}
	for i := 0; i < points; i += max(1, points/6) {
		d.text(x(i), height-bottom+18, "middle", "#57606a", "", fmt.Sprintf("%g", float64(i)*l.Every))
	}
	d.text(width-right, height-8, "end", "#57606a", `font-size="11"`, l.Along+"; "+l.Unit+", logarithmic")
	for i, s := range l.Series {
		var path strings.Builder
		pen := "M"
		for n, v := range s.Values {
			if math.IsNaN(v) || v <= 0 {
				pen = "M"
				continue
			}
			fmt.Fprintf(&path, "%s%.1f %.1f", pen, x(n), y(v))
			pen = "L"
		}
		fmt.Fprintf(d, `<path d="%s" fill="none" stroke="%s" stroke-width="1.8"/>`+"\n", path.String(), palette[i%len(palette)])
	}
	return d.bytes()
}
