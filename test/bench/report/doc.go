// Package report writes what was measured: Markdown tables, SVG charts and raw figures
// in JSON, with what they were measured on. It measures nothing.
package report
