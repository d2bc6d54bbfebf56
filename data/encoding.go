package data

import (
	"bytes"
	"errors"
	"io"
	"unicode/utf8"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/simplifiedchinese"
	"golang.org/x/text/encoding/traditionalchinese"
	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/encoding/unicode/utf32"
)

// sampleBytes is how much of a file its encoding is told from.
const sampleBytes = 256 << 10

// textEncoding is a way that bytes may mean text; decoder is nil for UTF-8.
type textEncoding struct {
	name    string
	bom     int // bytes to skip
	decoder encoding.Encoding
}

var (
	utf8Text    = textEncoding{name: "UTF-8"}
	utf16Little = textEncoding{name: "UTF-16LE", decoder: unicode.UTF16(unicode.LittleEndian, unicode.IgnoreBOM)}
	utf16Big    = textEncoding{name: "UTF-16BE", decoder: unicode.UTF16(unicode.BigEndian, unicode.IgnoreBOM)}
	utf32Little = textEncoding{name: "UTF-32LE", decoder: utf32.UTF32(utf32.LittleEndian, utf32.IgnoreBOM)}
	utf32Big    = textEncoding{name: "UTF-32BE", decoder: utf32.UTF32(utf32.BigEndian, utf32.IgnoreBOM)}
	gb18030     = textEncoding{name: "GB18030", decoder: simplifiedchinese.GB18030}
	big5        = textEncoding{name: "Big5", decoder: traditionalchinese.Big5}
)

var errBinary = errors.New("no text (binary data)")

// detect tells the encoding from the beginning of a file: by its mark, by being
// valid UTF-8 (which other text of any length never is by chance), by the look of
// UTF-16, or by which of the Chinese double-byte codes makes of it more of the
// characters that everybody writes.
func detect(sample []byte) (textEncoding, error) {
	for _, m := range []struct {
		mark string
		enc  textEncoding
	}{ // UTF-32's mark begins as UTF-16's does
		{"\xff\xfe\x00\x00", utf32Little}, {"\x00\x00\xfe\xff", utf32Big},
		{"\xef\xbb\xbf", utf8Text}, {"\xff\xfe", utf16Little}, {"\xfe\xff", utf16Big},
	} {
		if bytes.HasPrefix(sample, []byte(m.mark)) {
			m.enc.bom = len(m.mark)
			return m.enc, nil
		}
	}
	zeros, controls := countControls(sample)
	if zeros > 0 {
		little, big := utf16Plausible(sample, 1), utf16Plausible(sample, 0)
		if max(little, big) > 0.9 {
			if little >= big {
				return utf16Little, nil
			}
			return utf16Big, nil
		}
	}
	if zeros*50 > len(sample) || controls > 3 && controls*12 > len(sample) {
		return utf8Text, errBinary
	}
	wide, bad := countUTF8(sample)
	if bad*20 <= wide {
		return utf8Text, nil
	}
	gb, b5 := gb2312Share(sample), big5Share(sample)
	switch {
	case max(gb, b5) < 0.6:
		return utf8Text, nil // no encoding known here: its bytes are counted as invalid
	case gb >= b5:
		return gb18030, nil
	}
	return big5, nil
}

// countControls counts zero bytes, and all control bytes that text does without.
func countControls(b []byte) (zeros, controls int) {
	for _, c := range b {
		if c < ' ' && c != '\t' && c != '\n' && c != '\r' && c != '\f' && c != 0x1b {
			controls++
			if c == 0 {
				zeros++
			}
		}
	}
	return zeros, controls
}

// utf16Plausible is the share of 16-bit units that are Chinese characters, ASCII
// or their punctuation, high being the offset of a unit's high byte.
func utf16Plausible(b []byte, high int) float64 {
	n, good := 0, 0
	for i := 0; i+1 < len(b); i += 2 {
		u := uint16(b[i+high])<<8 | uint16(b[i+1-high])
		n++
		switch {
		case u >= ' ' && u < 0x7f, u == '\n', u == '\r', u == '\t',
			u >= 0x2010 && u < 0x2040, u >= 0x3000 && u < 0x3040, u >= 0x4e00 && u < 0xa000, u >= 0xff00 && u < 0xfff0:
			good++
		}
	}
	if n == 0 {
		return 0
	}
	return float64(good) / float64(n)
}

// countUTF8 counts characters of several bytes, and bytes that are no part of
// any; a character cut off at the end counts as neither.
func countUTF8(b []byte) (wide, bad int) {
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		switch {
		case r == utf8.RuneError && n == 1:
			if !utf8.FullRune(b) {
				return wide, bad
			}
			bad++
		case n > 1:
			wide++
		}
		b = b[n:]
	}
	return wide, bad
}

// gb2312Share is the share of double-byte characters that are GB2312's symbols
// and its 3755 common characters (level 1), were b GBK.
func gb2312Share(b []byte) float64 {
	return commonShare(b, func(lead, trail byte) bool {
		return trail >= 0xa1 && (lead >= 0xb0 && lead <= 0xd7 || lead >= 0xa1 && lead <= 0xa3)
	})
}

// big5Share is the share of Big5's symbols and its 5401 common characters.
func big5Share(b []byte) float64 {
	return commonShare(b, func(lead, trail byte) bool {
		return (trail >= 0x40 && trail <= 0x7e || trail >= 0xa1) && lead >= 0xa1 && lead <= 0xc6
	})
}

func commonShare(b []byte, common func(lead, trail byte) bool) float64 {
	n, good := 0, 0
	for i := 0; i+1 < len(b); i++ {
		if b[i] < 0x80 {
			continue
		}
		n++
		if common(b[i], b[i+1]) {
			good++
		}
		i++
	}
	if n == 0 {
		return 0
	}
	return float64(good) / float64(n)
}

// cleaner passes UTF-8 on and makes it valid: every run of bytes that is no
// character becomes one U+FFFD, and is counted.
type cleaner struct {
	r       io.Reader
	decoded bool   // r decodes another encoding: U+FFFD in it stands for what that could not read
	invalid int64  // invalid bytes met; characters, where decoded
	buf     []byte // what was read; its end may be half a character
	rest    []byte // that half, in buf
	out     []byte // clean, to be handed out
	err     error
}

func newCleaner(r io.Reader, decoded bool) *cleaner {
	return &cleaner{r: r, decoded: decoded, buf: make([]byte, 64<<10)}
}

func (c *cleaner) Read(p []byte) (int, error) {
	for len(c.out) == 0 {
		if c.err != nil {
			return 0, c.err
		}
		c.fill()
	}
	n := copy(p, c.out)
	c.out = c.out[n:]
	return n, nil
}

// fill reads on and cleans up to the last whole character.
func (c *cleaner) fill() {
	kept := copy(c.buf, c.rest)
	n, err := c.r.Read(c.buf[kept:])
	b := c.buf[:kept+n]
	c.err = err
	end := len(b)
	if err == nil {
		for i := max(0, end-utf8.UTFMax+1); i < end; i++ {
			if utf8.RuneStart(b[i]) && !utf8.FullRune(b[i:]) {
				end = i
				break
			}
		}
	}
	c.out, c.rest = b[:end], b[end:]
	if c.decoded {
		c.invalid += int64(bytes.Count(c.out, []byte("\uFFFD")))
	}
	if !utf8.Valid(c.out) {
		c.out = c.repair(c.out)
	}
}

func (c *cleaner) repair(b []byte) []byte {
	out := make([]byte, 0, len(b)+len(b)/8)
	bad := false
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		if r == utf8.RuneError && n == 1 {
			if !bad {
				out = append(out, "\uFFFD"...)
			}
			c.invalid++
		}
		if bad = r == utf8.RuneError && n == 1; !bad {
			out = append(out, b[:n]...)
		}
		b = b[n:]
	}
	return out
}
