package templates

import (
	"bytes"
	"io"
)

// LogFilter passes on to w what consul-template writes to the standard logger,
// without its TRACE and DEBUG lines: there is one for every query, and those about
// keys hold their values.
func LogFilter(w io.Writer) io.Writer { return logFilter{w} }

type logFilter struct{ w io.Writer }

func (f logFilter) Write(line []byte) (int, error) {
	if bytes.Contains(line, []byte("[TRACE]")) || bytes.Contains(line, []byte("[DEBUG]")) {
		return len(line), nil
	}
	return f.w.Write(line)
}
