package report

import (
	"encoding/xml"
	"io"
	"math"
	"strings"
	"testing"
	"time"
)

func TestQuantileIsTheSmallestThatAShareIsNotAbove(t *testing.T) {
	values := []time.Duration{5, 1, 4, 2, 3}
	for p, want := range map[float64]time.Duration{0: 1, 0.2: 1, 0.5: 3, 0.8: 4, 0.99: 5, 1: 5} {
		if got := Quantile(values, p); got != want {
			t.Errorf("quantile %v of 1…5 is %v, want %v", p, got, want)
		}
	}
	if values[0] != 5 {
		t.Error("the values were sorted in place")
	}
}

func TestChartsAreWellFormedWhateverTheyShow(t *testing.T) {
	format := func(v float64) string { return "<" + time.Duration(v).String() + ">" }
	for name, svg := range map[string][]byte{
		"bars":        Bars{Title: "a & b", Groups: []string{"<1>", "2"}, Series: []Series{{"x", []float64{1, 1000}}, {"y", []float64{math.NaN(), 0}}}, Format: format}.SVG(),
		"no bars":     Bars{Title: "none", Format: format}.SVG(),
		"lines":       Lines{Title: "a", Series: []Series{{"x", []float64{1, 0, 3, math.NaN(), 5}}}, Format: format, Every: 1}.SVG(),
		"one point":   Lines{Title: "a", Series: []Series{{"x", []float64{7}}}, Format: format, Every: 1}.SVG(),
		"equal lines": Lines{Title: "a", Series: []Series{{"x", []float64{10, 10}}}, Format: format, Every: 1}.SVG(),
	} {
		text := string(svg)
		if strings.Contains(text, "NaN") || strings.Contains(text, "Inf") {
			t.Errorf("%s: a coordinate is no number:\n%s", name, text)
		}
		for decoder := xml.NewDecoder(strings.NewReader(text)); ; {
			_, err := decoder.Token()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Errorf("%s: %v\n%s", name, err, text)
				break
			}
		}
	}
}

func TestPagesHaveTablesChartsAndWhatWasMeasured(t *testing.T) {
	dir := t.TempDir()
	part := Part{Name: "p", Title: "P", Tables: []Table{{Title: "T", Head: []string{"a", "b"}, Rows: [][]string{{"1", "2"}}, Note: "N."}}, Charts: []Chart{{"p.svg", "alt", []byte("<svg/>")}}}
	about := About{Date: "D", Command: "C", Commit: "abc", Machine: "M", Versions: map[string]string{"Z": "2", "A": "1"}}
	if err := part.Write(dir, about); err != nil {
		t.Fatal(err)
	}
	want := "# P\n\n### T\n\n| a | b |\n| --- | --- |\n| 1 | 2 |\n\nN.\n\n![alt](p.svg)\n\nMeasured on D with `C`, at abc, on M; A 1, Z 2.\n"
	if got := part.Markdown(about); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
