package serve

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// fields are the members of a request's JSON object. Its methods read one
// each, keep the value that is there already where the member is missing, and
// remember what is wrong.
type fields struct {
	raw      map[string]json.RawMessage
	nullable bool         // null means missing
	faults   []*httpError // the first of each member
}

// readFields reads a body of at most limit bytes.
func readFields(w http.ResponseWriter, r *http.Request, limit int64) (*fields, error) {
	if r.ContentLength > limit {
		swallow(w, r)
		return nil, tooLarge(limit)
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	if err == nil {
		// The time limit was for the body. Left standing, it would end the
		// connection while the answer is being made.
		_ = http.NewResponseController(w).SetReadDeadline(time.Time{}) // not every writer has deadlines
	}
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		swallow(w, r)
		return nil, tooLarge(limit)
	case err != nil:
		w.Header().Set("Connection", "close")
		return nil, &httpError{status: http.StatusRequestTimeout, message: "the body did not arrive in full"}
	case !utf8.Valid(body):
		return nil, &httpError{status: http.StatusBadRequest, message: "the body is not UTF-8"}
	}
	f := &fields{}
	if err := json.Unmarshal(body, &f.raw); err != nil || f.raw == nil {
		reason := "it must be one object"
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			reason = fmt.Sprintf("%v, at byte %d", syntax, syntax.Offset)
		}
		return nil, &httpError{status: http.StatusBadRequest, message: "the body is not a JSON object: " + reason}
	}
	return f, nil
}

// swallow reads some of a body that is not wanted: a client that sends all of it
// before it reads would otherwise see its connection reset instead of the answer.
func swallow(w http.ResponseWriter, r *http.Request) {
	const most = 16 << 20
	w.Header().Set("Connection", "close")
	if r.Header.Get("Expect") == "" { // else it waits to be asked for more
		_, _ = io.CopyN(io.Discard, r.Body, most) // whatever comes of it
	}
}

func tooLarge(limit int64) error {
	return &httpError{status: http.StatusRequestEntityTooLarge, message: fmt.Sprintf("the body is larger than %d bytes", limit)}
}

func (f *fields) get(name string) (json.RawMessage, bool) {
	raw, ok := f.raw[name]
	if ok && f.nullable && string(raw) == "null" {
		return nil, false
	}
	return raw, ok
}

func (f *fields) bad(name, format string, args ...any) {
	if !slices.ContainsFunc(f.faults, func(e *httpError) bool { return e.field == name }) {
		f.faults = append(f.faults, badField(name, format, args...))
	}
}

// done is all faults at once, if there are any.
func (f *fields) done() error {
	if len(f.faults) == 0 {
		return nil
	}
	all := *f.faults[0] // whose field is the answer's
	for _, e := range f.faults[1:] {
		all.message += "; " + e.message
	}
	return &all
}

// text reads a string. Half of a surrogate pair is no text.
func (f *fields) text(name string, to *string) {
	if raw, ok := f.get(name); ok {
		s, err := decodeString(raw)
		if err != nil {
			f.bad(name, "must be %v", err)
			return
		}
		*to = s
	}
}

func decodeString(raw json.RawMessage) (string, error) {
	var s *string
	if err := json.Unmarshal(raw, &s); err != nil || s == nil {
		return "", fmt.Errorf("a string, not %s", short(raw))
	}
	if strings.ContainsRune(*s, utf8.RuneError) && !bytes.ContainsRune(raw, utf8.RuneError) &&
		!bytes.Contains(bytes.ToLower(raw), []byte(`\ufffd`)) {
		return "", errors.New("text without half surrogate pairs")
	}
	return *s, nil
}

// real reads a number from lo to hi.
func (f *fields) real(name string, to *float64, lo, hi float64) {
	if raw, ok := f.get(name); ok {
		v, err := decodeNumber(raw)
		switch {
		case err != nil:
			f.bad(name, "must be %v", err)
		case v < lo || v > hi:
			f.bad(name, "must be between %g and %g, not %s", lo, hi, short(raw))
		default:
			*to = v
		}
	}
}

// whole reads a whole number from lo to hi.
func (f *fields) whole(name string, to *int, lo, hi int) {
	if raw, ok := f.get(name); ok {
		v, err := decodeNumber(raw)
		switch {
		case err != nil || v != math.Trunc(v):
			f.bad(name, "must be a whole number, not %s", short(raw))
		case v < float64(lo) || v > float64(hi):
			f.bad(name, "must be between %d and %d, not %s", lo, hi, short(raw))
		default:
			*to = int(v)
		}
	}
}

func decodeNumber(raw json.RawMessage) (float64, error) {
	var v *float64
	if err := json.Unmarshal(raw, &v); err != nil || v == nil {
		return 0, fmt.Errorf("a number, not %s", short(raw))
	}
	return *v, nil
}

// seed reads a whole number of 64 bits, where negative also one below 0; without
// one, to keeps its value.
func (f *fields) seed(name string, to *uint64, negative bool) {
	if raw, ok := f.get(name); ok {
		var u uint64
		var i int64
		number := "a whole number of 64 bits"
		if !negative {
			number += " that is not negative"
		}
		switch {
		case string(raw) == "null":
			f.bad(name, "must be a whole number, not null")
		case json.Unmarshal(raw, &u) == nil:
			*to = u
		case negative && json.Unmarshal(raw, &i) == nil:
			*to = uint64(i)
		default:
			f.bad(name, "must be %s, not %s", number, short(raw))
		}
	}
}

// flag reads a boolean.
func (f *fields) flag(name string, to *bool) {
	if raw, ok := f.get(name); ok {
		var v *bool
		if err := json.Unmarshal(raw, &v); err != nil || v == nil {
			f.bad(name, "must be true or false, not %s", short(raw))
			return
		}
		*to = *v
	}
}

// maxStops bounds the list of stop strings.
const maxStops = 16

// stops reads a string or a list of them; empty ones are left out.
func (f *fields) stops(name string, to *[]string) {
	raw, ok := f.get(name)
	if !ok {
		return
	}
	list := []json.RawMessage{raw}
	if bytes.HasPrefix(raw, []byte("[")) {
		if err := json.Unmarshal(raw, &list); err != nil {
			f.bad(name, "must be a string or a list of strings")
			return
		}
	}
	if len(list) > maxStops {
		f.bad(name, "must not hold more than %d strings", maxStops)
		return
	}
	for _, item := range list {
		s, err := decodeString(item)
		if err != nil {
			f.bad(name, "must be a string or a list of strings, and one of them is to be %v", err)
			return
		}
		if s != "" {
			*to = append(*to, s)
		}
	}
}

// short is the beginning of a JSON value, for a message.
func short(raw json.RawMessage) string {
	const most = 40
	if len(raw) <= most {
		return string(raw)
	}
	return strings.ToValidUTF8(string(raw[:most]), "") + "…"
}
