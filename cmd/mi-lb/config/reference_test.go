package config

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the table of keys into docs/configuration.md")

const (
	referenceFile  = "../../../docs/configuration.md"
	referenceBegin = "<!-- keys: written by go test ./cmd/mi-lb/config -update -->\n"
	referenceEnd   = "<!-- end of keys -->\n"
)

// TestReferenceListsEveryKey keeps the reference true.
func TestReferenceListsEveryKey(t *testing.T) {
	data, err := os.ReadFile(referenceFile)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok1 := strings.Cut(string(data), referenceBegin)
	got, after, ok2 := strings.Cut(rest, referenceEnd)
	if !ok1 || !ok2 {
		t.Fatalf("%s has no marked place for the keys", referenceFile)
	}
	want := reference()
	if *update {
		text := before + referenceBegin + want + referenceEnd + after
		if err := os.WriteFile(referenceFile, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s is not up to date; run the test with -update (-want +got):\n%s", referenceFile, diff)
	}
}

func reference() string {
	var b strings.Builder
	table := func(keys []Key, env bool) {
		b.WriteString("| key | default | meaning |\n|---|---|---|\n")
		for _, key := range keys {
			fmt.Fprintf(&b, "| `%s` | %s | %s |\n", key.Path, show(key.Default), key.Help)
		}
		b.WriteString("\n")
	}
	table(Keys(), true)
	b.WriteString("Each element of `marathon`:\n\n")
	table(MarathonKeys(), false)
	return b.String()
}

func show(value any) string {
	switch v := value.(type) {
	case time.Duration:
		text := v.String()
		text = strings.TrimSuffix(strings.TrimSuffix(text, "0s"), "0m")
		if text == "" || text != "" && !strings.ContainsAny(text[len(text)-1:], "smh") {
			text = v.String()
		}
		return "`" + text + "`"
	case []string:
		if len(v) == 0 {
			return ""
		}
		return "`[" + strings.Join(v, ", ") + "]`"
	case []Marathon:
		return ""
	case string:
		if v == "" {
			return ""
		}
	}
	return fmt.Sprintf("`%v`", value)
}
