package report

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Part is one page of a report: name.md, name.json and its charts.
type Part struct {
	// Name of the files.
	Name  string
	Title string
	// Intro says in a few lines what was done.
	Intro  string
	Tables []Table
	Charts []Chart
	// Raw figures, for JSON.
	Raw any
}

// Table of cells that are printed as they are.
type Table struct {
	Title string
	Head  []string
	Rows  [][]string
	Note  string
}

// Chart is a file beside the page.
type Chart struct {
	File, Alt string
	SVG       []byte
}

// Markdown is the table.
func (t Table) Markdown() string {
	var b strings.Builder
	if t.Title != "" {
		fmt.Fprintf(&b, "### %s\n\n", t.Title)
	}
	row := func(cells []string) { fmt.Fprintf(&b, "| %s |\n", strings.Join(cells, " | ")) }
	row(t.Head)
	row(slices.Repeat([]string{"---"}, len(t.Head)))
	for _, cells := range t.Rows {
		row(cells)
	}
	if t.Note != "" {
		fmt.Fprintf(&b, "\n%s\n", t.Note)
	}
	return b.String()
}

// Markdown is the page.
func (p Part) Markdown(about About) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s\n\n", p.Title)
	if p.Intro != "" {
		fmt.Fprintf(&b, "%s\n\n", p.Intro)
	}
	for _, t := range p.Tables {
		fmt.Fprintf(&b, "%s\n", t.Markdown())
	}
	for _, c := range p.Charts {
		fmt.Fprintf(&b, "![%s](%s)\n\n", c.Alt, c.File)
	}
	fmt.Fprintf(&b, "%s", about.Markdown())
	return b.String()
}

// Markdown says in a few lines on what and with what was measured.
func (a About) Markdown() string {
	var versions []string
	for _, name := range slices.Sorted(maps.Keys(a.Versions)) {
		versions = append(versions, name+" "+a.Versions[name])
	}
	return fmt.Sprintf("Measured on %s with `%s`, at %s, on %s; %s.\n", a.Date, a.Command, a.Commit, a.Machine, strings.Join(versions, ", "))
}

// Write writes the page, its charts and its raw figures into the directory.
func (p Part) Write(dir string, about About) error {
	raw, err := json.MarshalIndent(map[string]any{"about": about, p.Name: p.Raw}, "", " ")
	if err != nil {
		return fmt.Errorf("encode the figures of %s: %w", p.Name, err)
	}
	files := map[string][]byte{p.Name + ".md": []byte(p.Markdown(about)), p.Name + ".json": append(raw, '\n')}
	for _, c := range p.Charts {
		files[c.File] = c.SVG
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			return fmt.Errorf("write the report: %w", err)
		}
	}
	return nil
}
