package marathon

import (
	"bufio"
	"bytes"
	"errors"
	"io"
)

// message is one message of an event stream.
type message struct {
	event string
	data  []byte
}

// errTooBig is a message that is larger than the reader takes. The reader has
// skipped it and can go on.
var errTooBig = errors.New("an event is too big")

// messageReader reads a text/event-stream: lines that end in LF, CRLF or CR,
// messages that end in an empty line. Fields other than event and data are
// ignored; Marathon sends no others.
type messageReader struct {
	r    *bufio.Reader
	most int
	line []byte
	// afterCR says that the last line ended in CR, so that an LF is part of it.
	afterCR bool
	started bool
}

// bom may stand at the beginning of a stream.
var bom = []byte("\ufeff")

// newMessageReader takes messages of up to that many bytes.
func newMessageReader(r io.Reader, most int) *messageReader {
	return &messageReader{r: bufio.NewReaderSize(r, 64<<10), most: most}
}

// next is the next message that has data. The data is the caller's to keep.
func (s *messageReader) next() (message, error) {
	var m message
	var hasData, tooBig bool
	for {
		line, big, err := s.readLine()
		if err != nil {
			return message{}, err
		}
		if big {
			tooBig = true
			continue
		}
		if len(line) == 0 {
			switch {
			case tooBig:
				return message{}, errTooBig
			case hasData:
				return m, nil
			}
			m = message{}
			continue
		}
		field, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(field) {
		case "event":
			m.event = string(value)
		case "data":
			if len(m.data)+len(value) > s.most {
				tooBig, m.data = true, nil
				continue
			}
			if hasData {
				m.data = append(m.data, '\n')
			}
			m.data = append(m.data, value...)
			hasData = true
		}
	}
}

// readLine is the next line without its end; it is valid until the next call.
// Of a line that is too long only that is reported.
func (s *messageReader) readLine() (line []byte, tooLong bool, err error) {
	s.line = s.line[:0]
	for {
		if _, err := s.r.Peek(1); err != nil {
			return nil, false, err
		}
		chunk, _ := s.r.Peek(s.r.Buffered())
		if s.afterCR {
			s.afterCR = false
			if chunk[0] == '\n' {
				_, _ = s.r.Discard(1)
				continue
			}
		}
		if !s.started {
			s.started = true
			if chunk[0] == bom[0] {
				// Only then: waiting for two more bytes would hold up a heartbeat.
				chunk, _ = s.r.Peek(len(bom))
			}
			if bytes.HasPrefix(chunk, bom) {
				_, _ = s.r.Discard(len(bom))
				continue
			}
		}
		end := bytes.IndexByte(chunk, '\n')
		content := chunk
		if end >= 0 {
			content = chunk[:end]
		}
		if cr := bytes.IndexByte(content, '\r'); cr >= 0 {
			end, content = cr, chunk[:cr]
		}
		if len(s.line)+len(content) > s.most+64 {
			tooLong = true
			s.line = s.line[:0]
		}
		if !tooLong {
			s.line = append(s.line, content...)
		}
		if end < 0 {
			_, _ = s.r.Discard(len(chunk))
			continue
		}
		s.afterCR = chunk[end] == '\r'
		_, _ = s.r.Discard(end + 1)
		return s.line, tooLong, nil
	}
}
