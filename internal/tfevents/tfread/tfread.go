// Package tfread reads TensorBoard's event files, for the tests of what writes
// them. It shares no code with the writer: the checksum is computed bit by bit
// from its polynomial, the fields are taken apart by protowire.
package tfread

import (
	"encoding/binary"
	"fmt"
	"math"

	"google.golang.org/protobuf/encoding/protowire"
)

// Event is a record of an event file.
type Event struct {
	WallTime float64 // seconds since 1970
	Step     int64
	Version  string // of the first record only
	Tag      string
	Value    float32 // of a scalar
	Plugin   string  // "text" for a text
	Text     string
}

// Read takes a whole file apart. Every length and checksum must be right, and
// nothing may be left over.
func Read(file []byte) (events []Event, err error) {
	for at := 0; at < len(file); {
		rest := file[at:]
		if len(rest) < 12 {
			return nil, fmt.Errorf("byte %d: %d bytes are no record", at, len(rest))
		}
		n := binary.LittleEndian.Uint64(rest)
		if sum := binary.LittleEndian.Uint32(rest[8:]); sum != masked(rest[:8]) {
			return nil, fmt.Errorf("byte %d: the length's checksum is %08x", at, sum)
		}
		if n > uint64(len(rest)-12) || n+4 > uint64(len(rest)-12) {
			return nil, fmt.Errorf("byte %d: a record of %d bytes, and %d are left", at, n, len(rest)-12)
		}
		data := rest[12 : 12+n]
		if sum := binary.LittleEndian.Uint32(rest[12+n:]); sum != masked(data) {
			return nil, fmt.Errorf("byte %d: the data's checksum is %08x", at, sum)
		}
		var e Event
		if err := fields(data, (&e).field); err != nil {
			return nil, fmt.Errorf("byte %d: %w", at, err)
		}
		events = append(events, e)
		at += 12 + int(n) + 4
	}
	return events, nil
}

// masked is the CRC-32C after its definition (RFC 3720), in TFRecord's mask.
func masked(data []byte) uint32 {
	crc := ^uint32(0)
	for _, b := range data {
		crc ^= uint32(b)
		for range 8 {
			crc = crc>>1 ^ 0x82f63b78*(crc&1)
		}
	}
	crc = ^crc
	return (crc>>15 | crc<<17) + 0xa282ead8
}

// fields calls f for each field of a message: number is its value where it is a
// number, bytes its contents where it has a length.
func fields(msg []byte, f func(field protowire.Number, number uint64, bytes []byte) error) error {
	for len(msg) > 0 {
		num, typ, n := protowire.ConsumeTag(msg)
		if n < 0 {
			return protowire.ParseError(n)
		}
		msg = msg[n:]
		var number uint64
		var bytes []byte
		switch typ {
		case protowire.VarintType:
			number, n = protowire.ConsumeVarint(msg)
		case protowire.Fixed64Type:
			number, n = protowire.ConsumeFixed64(msg)
		case protowire.Fixed32Type:
			var v uint32
			v, n = protowire.ConsumeFixed32(msg)
			number = uint64(v)
		case protowire.BytesType:
			bytes, n = protowire.ConsumeBytes(msg)
		default:
			return fmt.Errorf("field %d of type %d", num, typ)
		}
		if n < 0 {
			return protowire.ParseError(n)
		}
		msg = msg[n:]
		if err := f(num, number, bytes); err != nil {
			return err
		}
	}
	return nil
}

func (e *Event) field(num protowire.Number, number uint64, bytes []byte) error {
	switch num {
	case 1:
		e.WallTime = math.Float64frombits(number)
	case 2:
		e.Step = int64(number)
	case 3:
		e.Version = string(bytes)
	case 5:
		return fields(bytes, func(num protowire.Number, _ uint64, value []byte) error {
			if num != 1 {
				return fmt.Errorf("field %d in a summary", num)
			}
			return fields(value, e.value)
		})
	default:
		return fmt.Errorf("field %d in an event", num)
	}
	return nil
}

func (e *Event) value(num protowire.Number, number uint64, bytes []byte) error {
	switch num {
	case 1:
		e.Tag = string(bytes)
	case 2:
		e.Value = math.Float32frombits(uint32(number))
	case 8:
		return fields(bytes, func(num protowire.Number, number uint64, bytes []byte) error {
			switch {
			case num == 1 && number != 7:
				return fmt.Errorf("a tensor of type %d, not of strings", number)
			case num == 8:
				e.Text = string(bytes)
			}
			return nil
		})
	case 9:
		return fields(bytes, func(num protowire.Number, _ uint64, bytes []byte) error {
			if num != 1 {
				return nil
			}
			return fields(bytes, func(num protowire.Number, _ uint64, bytes []byte) error {
				e.Plugin = string(bytes)
				return nil
			})
		})
	default:
		return fmt.Errorf("field %d in a value", num)
	}
	return nil
}
