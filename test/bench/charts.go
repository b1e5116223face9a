package main

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/mi-lb/mi-lb/test/bench/report"
)

// grid is values by group and series, in the order in which they came.
type grid struct {
	groups, series []string
	values         map[[2]string]float64
}

func (g *grid) put(group, series string, value float64) {
	if g.values == nil {
		g.values = map[[2]string]float64{}
	}
	if !slices.Contains(g.groups, group) {
		g.groups = append(g.groups, group)
	}
	if !slices.Contains(g.series, series) {
		g.series = append(g.series, series)
	}
	g.values[[2]string{group, series}] = value
}

// bars of the grid; times are in nanoseconds.
func (g *grid) bars(title, unit string, format func(float64) string) report.Bars {
	b := report.Bars{Title: title, Unit: unit, Groups: g.groups, Format: format}
	for _, name := range g.series {
		s := report.Series{Name: name}
		for _, group := range g.groups {
			v, ok := g.values[[2]string{group, name}]
			if !ok {
				v = math.NaN()
			}
			s.Values = append(s.Values, v)
		}
		b.Series = append(b.Series, s)
	}
	return b
}

func asTime(v float64) string {
	d := time.Duration(v)
	switch {
	case d < time.Millisecond:
		return fmt.Sprintf("%.2g ms", d.Seconds()*1000)
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.3g ms", d.Seconds()*1000)
	case d < time.Second:
		return fmt.Sprintf("%.0f ms", d.Seconds()*1000)
	default:
		return fmt.Sprintf("%.3g s", d.Seconds())
	}
}

// propagationCharts are one for each size.
func propagationCharts(results []propagationResult) []report.Chart {
	bySize := map[size]*grid{}
	var sizes []size
	for _, r := range results {
		g := bySize[r.Size]
		if g == nil {
			g = &grid{}
			bySize[r.Size] = g
			sizes = append(sizes, r.Size)
		}
		g.put(r.Change, r.Subject, float64(report.Quantile(r.Times, 0.5)))
	}
	var charts []report.Chart
	for _, s := range sizes {
		title := fmt.Sprintf("From a change to traffic, median, at %s", s)
		charts = append(charts, report.Chart{
			File: fmt.Sprintf("propagation-%d.svg", s.Services), Alt: title, SVG: bySize[s].bars(title, "time", asTime).SVG(),
		})
	}
	return charts
}

// scaleCharts are about what grows with the catalog.
func scaleCharts(results []scaleResult) []report.Chart {
	var change, start, memory grid
	for _, r := range results {
		if r.Failure != "" {
			continue
		}
		// Less than what can be told apart is nothing to draw.
		change.put(r.Size.String(), r.Subject, math.Max(float64(r.ChangeControl+r.ChangeConsul), float64(time.Millisecond)/10))
		start.put(r.Size.String(), r.Subject, float64(r.Ready))
		memory.put(r.Size.String(), r.Subject, float64(r.PeakMemory))
	}
	megabytes := func(v float64) string { return report.Megabytes(int64(v)) }
	return []report.Chart{
		{File: "scale-change.svg", Alt: "CPU time of one change", SVG: change.bars("CPU time of one change, control plane and Consul", "CPU time", asTime).SVG()},
		{File: "scale-start.svg", Alt: "From the start to routes", SVG: start.bars("From the start to routes", "time", asTime).SVG()},
		{File: "scale-memory.svg", Alt: "Memory of the control plane", SVG: memory.bars("Memory of the control plane, at most", "resident", func(v float64) string {
			if v < 1<<20 {
				return "" // of the axis
			}
			return megabytes(v)
		}).SVG()},
	}
}

// churnCharts are the latencies of each second while changes are made.
func churnCharts(results []churnResult) []report.Chart {
	l := report.Lines{Title: "p99 of requests in each second of the changes", Unit: "latency", Along: "seconds", Format: asTime, Every: 1}
	for _, r := range results {
		if r.Failure != "" {
			continue
		}
		s := report.Series{Name: r.Subject}
		for _, p99 := range r.Churn.BySecond {
			s.Values = append(s.Values, float64(p99))
		}
		l.Series = append(l.Series, s)
	}
	return []report.Chart{{File: "churn.svg", Alt: l.Title, SVG: l.SVG()}}
}

// ratios are how much longer than mi-lb the others take: the median of all changes of
// instances, and of new services.
func ratios(results []propagationResult) report.Table {
	type key struct {
		size    size
		subject string
	}
	instances, services := map[key][]time.Duration{}, map[key][]time.Duration{}
	var order []key
	for _, r := range results {
		k := key{r.Size, r.Subject}
		if !slices.Contains(order, k) {
			order = append(order, k)
		}
		if r.Change == newService {
			services[k] = append(services[k], r.Times...)
		} else if r.Change != serviceRemoved {
			instances[k] = append(instances[k], r.Times...)
		}
	}
	t := report.Table{Title: "In short", Head: []string{"services", "", "changes of instances, p50", "max", "× mi-lb's p50", "new services, p50", "× mi-lb's p50"}}
	for _, k := range order {
		ours := key{k.size, "mi-lb"}
		times := func(all map[key][]time.Duration) string {
			if len(all[ours]) == 0 || k == ours {
				return ""
			}
			return fmt.Sprintf("%.0f", float64(report.Quantile(all[k], 0.5))/float64(report.Quantile(all[ours], 0.5)))
		}
		t.Rows = append(t.Rows, []string{
			k.size.String(), k.subject, report.Milliseconds(report.Quantile(instances[k], 0.5)), report.Milliseconds(report.Quantile(instances[k], 1)), times(instances),
			report.Milliseconds(report.Quantile(services[k], 0.5)), times(services),
		})
	}
	return t
}
