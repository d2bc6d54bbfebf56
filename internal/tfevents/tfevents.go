// Package tfevents writes TensorBoard's event files: scalars over steps, and
// texts.
//
//	w, err := tfevents.Create("tensorboard/events.out.tfevents.1700000000.host")
//	w.Scalar(now, step, "train/loss", 3.2)
//	w.Text(now, step, "samples/春天", "春天来了")
//	err = w.Close()
//
// A file is a row of TFRecords (length, masked CRC-32C of the length, data,
// masked CRC-32C of the data); the data of each is an Event of TensorFlow's
// event.proto, of which only the fields that are needed here are encoded. The
// first record says "brain.Event:2", without which TensorBoard reads no file.
package tfevents

import (
	"bufio"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"math"
	"os"
	"time"
)

// Writer writes one event file. It keeps what is written in memory until Flush
// or until its buffer is full. The first error is kept: later calls do nothing,
// and Flush and Close return it. It is used by one goroutine.
type Writer struct {
	out    *bufio.Writer
	closer io.Closer
	err    error
	buf    []byte // the event that is being built
}

// Create starts a new file.
func Create(path string) (*Writer, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return nil, err
	}
	w := NewWriter(f, time.Now())
	w.closer = f
	return w, nil
}

// NewWriter writes the file's first record, dated start, to out.
func NewWriter(out io.Writer, start time.Time) *Writer {
	w := &Writer{out: bufio.NewWriterSize(out, 1<<16)}
	e := w.event(start, 0)
	w.record(appendString(e, 3, "brain.Event:2"))
	return w
}

// Scalar writes one value of a curve.
func (w *Writer) Scalar(at time.Time, step int64, tag string, value float64) {
	v := appendString(nil, 1, tag)
	v = appendTag(v, 2, wireFixed32)
	v = binary.LittleEndian.AppendUint32(v, math.Float32bits(float32(value)))
	w.summary(at, step, v)
}

// Text writes a text, which TensorBoard shows as Markdown.
func (w *Writer) Text(at time.Time, step int64, tag, text string) {
	const dtString, classTensor = 7, 2
	tensor := appendUint(nil, 1, dtString)
	tensor = appendBytes(tensor, 2, appendBytes(nil, 2, appendUint(nil, 1, 1))) // the shape [1]
	tensor = appendString(tensor, 8, text)
	metadata := appendBytes(nil, 1, appendString(nil, 1, "text")) // of the text plugin
	metadata = appendUint(metadata, 4, classTensor)

	v := appendString(nil, 1, tag)
	v = appendBytes(v, 8, tensor)
	v = appendBytes(v, 9, metadata)
	w.summary(at, step, v)
}

// Flush hands everything written so far to the file.
func (w *Writer) Flush() error {
	if w.err == nil {
		w.err = w.out.Flush()
	}
	return w.err
}

// Close flushes and closes the file.
func (w *Writer) Close() error {
	err := w.Flush()
	if w.closer != nil {
		err = errors.Join(err, w.closer.Close())
		w.closer = nil
	}
	return err
}

// summary writes an Event with one Summary.Value.
func (w *Writer) summary(at time.Time, step int64, value []byte) {
	w.record(appendBytes(w.event(at, step), 5, appendBytes(nil, 1, value)))
}

// event begins an Event: wall_time and step.
func (w *Writer) event(at time.Time, step int64) []byte {
	e := appendTag(w.buf[:0], 1, wireFixed64)
	e = binary.LittleEndian.AppendUint64(e, math.Float64bits(float64(at.UnixMicro())/1e6))
	return appendUint(e, 2, uint64(step))
}

// record frames data as a TFRecord.
func (w *Writer) record(data []byte) {
	w.buf = data[:0]
	if w.err != nil {
		return
	}
	var head [12]byte
	binary.LittleEndian.PutUint64(head[:], uint64(len(data)))
	binary.LittleEndian.PutUint32(head[8:], maskedCRC(head[:8]))
	foot := binary.LittleEndian.AppendUint32(nil, maskedCRC(data))
	for _, part := range [][]byte{head[:], data, foot} {
		if _, err := w.out.Write(part); err != nil {
			w.err = err
			return
		}
	}
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// maskedCRC is the CRC-32C, rotated and displaced so that the sum of data that
// holds sums is no special case.
func maskedCRC(data []byte) uint32 {
	sum := crc32.Checksum(data, castagnoli)
	return (sum>>15 | sum<<17) + 0xa282ead8
}

// The wire types of protocol buffers.
const (
	wireVarint  = 0
	wireFixed64 = 1
	wireBytes   = 2
	wireFixed32 = 5
)

func appendTag(b []byte, field, wire uint64) []byte {
	return binary.AppendUvarint(b, field<<3|wire)
}

func appendUint(b []byte, field, v uint64) []byte {
	return binary.AppendUvarint(appendTag(b, field, wireVarint), v)
}

func appendBytes(b []byte, field uint64, v []byte) []byte {
	return append(binary.AppendUvarint(appendTag(b, field, wireBytes), uint64(len(v))), v...)
}

func appendString(b []byte, field uint64, v string) []byte {
	return append(binary.AppendUvarint(appendTag(b, field, wireBytes), uint64(len(v))), v...)
}
