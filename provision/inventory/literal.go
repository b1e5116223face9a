package inventory

import (
	"errors"
	"math/big"
	"strconv"
	"strings"
	"unicode/utf8"
)

// literal is the value that Python's ast.literal_eval gives for s, which is how
// Ansible types the values of INI files. What it does not accept is the string
// itself: web, yes, 01, {a:1}.
func literal(s string) any {
	p := &literalParser{rest: strings.TrimLeft(s, " \t")}
	value, err := p.expression(0)
	if err != nil {
		return s
	}
	p.space()
	if p.rest != "" && p.rest[0] == ',' {
		// A tuple without parentheses.
		items := []any{value}
		for p.rest != "" && p.rest[0] == ',' {
			p.rest = p.rest[1:]
			p.space()
			if p.rest == "" {
				break
			}
			item, err := p.expression(0)
			if err != nil {
				return s
			}
			items = append(items, item)
			p.space()
		}
		value = items
	}
	if p.rest != "" {
		return s
	}
	return value
}

var errNoLiteral = errors.New("no literal")

// deepest nesting that Python's parser is sure to accept, and more than anybody writes.
const deepestLiteral = 90

type literalParser struct{ rest string }

// space skips blanks and a comment.
func (p *literalParser) space() {
	p.rest = strings.TrimLeft(p.rest, " \t\f")
	if strings.HasPrefix(p.rest, "#") {
		p.rest = ""
	}
}

func (p *literalParser) expression(depth int) (any, error) {
	if depth > deepestLiteral {
		return nil, errNoLiteral
	}
	p.space()
	if p.rest == "" {
		return nil, errNoLiteral
	}
	switch c := p.rest[0]; {
	case c == '[':
		p.rest = p.rest[1:]
		items, _, err := p.items(']', depth)
		return items, err
	case c == '(':
		p.rest = p.rest[1:]
		items, commas, err := p.items(')', depth)
		if err == nil && len(items) == 1 && !commas {
			return items[0], nil
		}
		return items, err
	case c == '{':
		p.rest = p.rest[1:]
		return p.braces(depth)
	case c == '+' || c == '-':
		return p.signed()
	case c >= '0' && c <= '9' || c == '.':
		return p.number()
	}
	if value, ok, err := p.text(); ok || err != nil {
		return value, err
	}
	for word, value := range map[string]any{"True": true, "False": false, "None": nil} {
		if rest, ok := strings.CutPrefix(p.rest, word); ok && !startsWord(rest) {
			p.rest = rest
			return value, nil
		}
	}
	return nil, errNoLiteral
}

func startsWord(s string) bool {
	if s == "" {
		return false
	}
	c := s[0]
	return c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= utf8.RuneSelf
}

// items reads what stands between brackets, and says whether it had a comma.
func (p *literalParser) items(closing byte, depth int) ([]any, bool, error) {
	items, commas := []any{}, false
	for {
		p.space()
		if p.rest == "" {
			return nil, false, errNoLiteral
		}
		if p.rest[0] == closing {
			p.rest = p.rest[1:]
			return items, commas, nil
		}
		if len(items) > 0 && !commas {
			return nil, false, errNoLiteral
		}
		item, err := p.expression(depth + 1)
		if err != nil {
			return nil, false, err
		}
		items = append(items, item)
		p.space()
		if strings.HasPrefix(p.rest, ",") {
			p.rest = p.rest[1:]
			commas = true
		} else if p.rest == "" || p.rest[0] != closing {
			return nil, false, errNoLiteral
		} else {
			p.rest = p.rest[1:]
			return items, commas, nil
		}
	}
}

// braces reads a dictionary or a set, whose opening brace is gone.
func (p *literalParser) braces(depth int) (any, error) {
	dictionary := map[string]any{}
	var set []any
	for n := 0; ; n++ {
		p.space()
		if p.rest == "" {
			return nil, errNoLiteral
		}
		if p.rest[0] == '}' {
			p.rest = p.rest[1:]
			if set != nil {
				return set, nil
			}
			return dictionary, nil
		}
		key, err := p.expression(depth + 1)
		if err != nil {
			return nil, err
		}
		p.space()
		if strings.HasPrefix(p.rest, ":") && set == nil {
			p.rest = p.rest[1:]
			value, err := p.expression(depth + 1)
			if err != nil {
				return nil, err
			}
			name, ok := keyName(key)
			if !ok {
				return nil, errNoLiteral
			}
			dictionary[name] = value
		} else if len(dictionary) > 0 {
			return nil, errNoLiteral
		} else if _, ok := keyName(key); !ok {
			return nil, errNoLiteral
		} else {
			set = append(set, key)
		}
		p.space()
		switch {
		case strings.HasPrefix(p.rest, ","):
			p.rest = p.rest[1:]
		case !strings.HasPrefix(p.rest, "}"):
			return nil, errNoLiteral
		}
	}
}

// keyName is a dictionary's key as JSON has it.
func keyName(key any) (string, bool) {
	switch k := key.(type) {
	case string:
		return k, true
	case nil:
		return "null", true
	case bool:
		return strconv.FormatBool(k), true
	case int64:
		return strconv.FormatInt(k, 10), true
	case *big.Int:
		return k.String(), true
	case float64:
		return formatFloat(k), true
	}
	return "", false
}

func (p *literalParser) signed() (any, error) {
	// One sign: Python folds no more of them in a literal.
	negative := p.rest[0] == '-'
	p.rest = p.rest[1:]
	p.space()
	if p.rest == "" || p.rest[0] != '.' && (p.rest[0] < '0' || p.rest[0] > '9') {
		return nil, errNoLiteral
	}
	value, err := p.number()
	if err != nil || !negative {
		return value, err
	}
	switch n := value.(type) {
	case int64:
		return -n, nil
	case *big.Int:
		return shrink(new(big.Int).Neg(n)), nil
	default:
		return -value.(float64), nil
	}
}

// number reads an unsigned number as Python writes it.
func (p *literalParser) number() (any, error) {
	end := 0
	isBased := len(p.rest) > 1 && p.rest[0] == '0' && strings.ContainsRune("xXoObB", rune(p.rest[1]))
	for end < len(p.rest) {
		c := p.rest[end]
		exponentSign := (c == '+' || c == '-') && end > 0 && !isBased && (p.rest[end-1] == 'e' || p.rest[end-1] == 'E')
		if !startsWord(p.rest[end:]) && c != '.' && !exponentSign {
			break
		}
		end++
	}
	token := p.rest[:end]
	value, ok := pythonNumber(token, isBased)
	if !ok {
		return nil, errNoLiteral
	}
	p.rest = p.rest[end:]
	return value, nil
}

func pythonNumber(token string, isBased bool) (any, bool) {
	digits, ok := withoutUnderscores(token, isBased)
	if !ok {
		return nil, false
	}
	if !isBased && strings.ContainsAny(digits, ".eE") {
		for _, c := range digits {
			if !strings.ContainsRune("0123456789.eE+-", c) {
				return nil, false
			}
		}
		value, err := strconv.ParseFloat(digits, 64)
		if err != nil && !errors.Is(err, strconv.ErrRange) {
			return nil, false
		}
		return value, true
	}
	if !isBased && len(digits) > 1 && digits[0] == '0' && strings.Trim(digits, "0") != "" {
		return nil, false // 01 is no number in Python 3
	}
	if len(digits) > 4300 {
		return nil, false // Python refuses longer ones
	}
	base := 10
	if isBased {
		base = 0
	}
	value, ok := new(big.Int).SetString(digits, base)
	if !ok {
		return nil, false
	}
	return shrink(value), true
}

// withoutUnderscores removes the underscores that Python allows: single ones
// between digits.
func withoutUnderscores(token string, isBased bool) (string, bool) {
	isDigit := func(i int) bool {
		if i < 0 || i >= len(token) {
			return false
		}
		c := token[i]
		return c >= '0' && c <= '9' || isBased && (c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F' || c == 'x' || c == 'X' || c == 'o' || c == 'O')
	}
	for i := range len(token) {
		if token[i] == '_' && (!isDigit(i-1) || !isDigit(i+1)) {
			return "", false
		}
	}
	return strings.ReplaceAll(token, "_", ""), true
}

// shrink is an int64 where that is large enough.
func shrink(n *big.Int) any {
	if n.IsInt64() {
		return n.Int64()
	}
	return n
}

// text reads one string or several in a row, which Python joins. ok is false
// where there is none.
func (p *literalParser) text() (value any, ok bool, err error) {
	var all strings.Builder
	for n := 0; ; n++ {
		p.space()
		prefix := 0
		for prefix < len(p.rest) && prefix < 2 && strings.ContainsRune("uUrRbB", rune(p.rest[prefix])) {
			prefix++
		}
		if prefix >= len(p.rest) || p.rest[prefix] != '\'' && p.rest[prefix] != '"' {
			if n == 0 {
				return nil, false, nil
			}
			return all.String(), true, nil
		}
		kind := strings.ToLower(p.rest[:prefix])
		switch kind {
		case "", "u", "r", "b", "br", "rb":
		default:
			return nil, false, errNoLiteral
		}
		p.rest = p.rest[prefix:]
		s, err := p.quoted(strings.Contains(kind, "r"))
		if err != nil {
			return nil, false, err
		}
		all.WriteString(s)
	}
}

func (p *literalParser) quoted(raw bool) (string, error) {
	quote := p.rest[:1]
	if triple := strings.Repeat(quote, 3); strings.HasPrefix(p.rest, triple) {
		quote = triple
	}
	rest := p.rest[len(quote):]
	var b strings.Builder
	for {
		switch {
		case rest == "":
			return "", errNoLiteral
		case strings.HasPrefix(rest, quote):
			p.rest = rest[len(quote):]
			return b.String(), nil
		case rest[0] != '\\':
			b.WriteByte(rest[0])
			rest = rest[1:]
		case len(rest) == 1:
			return "", errNoLiteral
		case raw:
			b.WriteString(rest[:2])
			rest = rest[2:]
		default:
			n, err := unescape(&b, rest)
			if err != nil {
				return "", err
			}
			rest = rest[n:]
		}
	}
}

// unescape writes what the escape sequence at the start of s stands for, and
// returns its length. What is no sequence stays, backslash and all.
func unescape(b *strings.Builder, s string) (int, error) {
	const plain, meaning = `\'"abfnrtv`, "\\'\"\a\b\f\n\r\t\v"
	c := s[1]
	if i := strings.IndexByte(plain, c); i >= 0 {
		b.WriteByte(meaning[i])
		return 2, nil
	}
	hex := func(n int) (int, error) {
		if len(s) < 2+n {
			return 0, errNoLiteral
		}
		r, err := strconv.ParseUint(s[2:2+n], 16, 32)
		if err != nil || r > utf8.MaxRune {
			return 0, errNoLiteral
		}
		b.WriteRune(rune(r))
		return 2 + n, nil
	}
	switch {
	case c == 'x':
		return hex(2)
	case c == 'u':
		return hex(4)
	case c == 'U':
		return hex(8)
	case c == 'N':
		return 0, errNoLiteral // names of characters: nobody writes them in an inventory
	case c >= '0' && c <= '7':
		n := 2
		for n < len(s) && n < 4 && s[n] >= '0' && s[n] <= '7' {
			n++
		}
		r, err := strconv.ParseUint(s[1:n], 8, 32)
		if err != nil {
			return 0, errNoLiteral
		}
		b.WriteRune(rune(r))
		return n, nil
	}
	b.WriteString(s[:2])
	return 2, nil
}
