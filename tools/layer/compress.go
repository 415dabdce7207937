package layer

import (
	"context"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// How a layer is compressed. These are part of its format: changing one
// changes the digest of every layer.
const (
	// chunkSize is how much of the tar goes into one frame. A frame finds
	// matches only in itself, so larger chunks make smaller layers, and
	// take more memory: with 8 MiB the whole came within 2 MiB of its
	// 64 MiB, 4 MiB made layers 3 % larger.
	chunkSize = 7 << 20
	// windowSize is the next power of two, and the largest window that
	// every zstd reader must accept.
	windowSize = 8 << 20

	// level is the library's name for what the zstd command calls -6 to
	// -9. bazel run //tools/bench:layer compares it with -6. The level
	// below, for -3 to -5, does not keep up with the command's -3.
	level = zstd.SpeedBetterCompression
)

const (
	// encoders run at a time and slots hold a chunk each: one more, so
	// that the tar is read while both encoders are busy. Their sum is the
	// memory of the whole: an encoder keeps a chunk as its window and
	// tables of 4 MiB, and a slot a chunk, whose compressed form is written
	// over it. More would go faster on more CPUs, and beyond 64 MiB.
	encoders = 2
	slots    = encoders + 1

	blockSize = 128 << 10
	// headroom separates the compressed bytes at the start of a slot from
	// the chunk behind them. An encoder that is fed block by block has
	// written at most a header and three bytes a block more than it has
	// read, so two blocks of room mean that it never runs into its input.
	headroom = 2 * blockSize
)

// slot is a chunk on its way through the compressor.
type slot struct {
	buf []byte // headroom, then chunkSize bytes of tar
	n   int    // bytes of tar
	out int    // bytes of the frame, from the start of buf
	err error
	// limit is the start of the block being read: output ends before it.
	limit int
	done  chan struct{}
}

// Write takes an encoder's output.
func (s *slot) Write(p []byte) (int, error) {
	if s.out+len(p) > s.limit {
		return 0, fmt.Errorf("compressed bytes (%d) overtook the tar (%d)", s.out+len(p), s.limit)
	}
	copy(s.buf[s.out:], p)
	s.out += len(p)
	return len(p), nil
}

func (s *slot) compress(enc *zstd.Encoder) error {
	s.out = 0
	s.limit = headroom
	enc.ResetContentSize(s, int64(s.n))
	for at := 0; at < s.n; at += blockSize {
		s.limit = headroom + at
		if _, err := enc.Write(s.buf[headroom+at : headroom+min(at+blockSize, s.n)]); err != nil {
			return err
		}
	}
	s.limit = len(s.buf)
	return enc.Close()
}

// compressor is an io.Writer that turns a tar stream into frames.
type compressor struct {
	ctx    context.Context
	cancel context.CancelCauseFunc

	free    chan *slot // slots to fill
	work    chan *slot // filled, for the encoders
	ordered chan *slot // filled, in the order of the stream, for the writer
	filling *slot
	wg      sync.WaitGroup
}

func newCompressor(ctx context.Context, cancel context.CancelCauseFunc, w io.Writer) *compressor {
	c := &compressor{
		ctx:     ctx,
		cancel:  cancel,
		free:    make(chan *slot, slots),
		work:    make(chan *slot, slots),
		ordered: make(chan *slot, slots),
	}
	for range slots {
		c.free <- new(slot)
	}
	for range encoders {
		c.wg.Go(c.encode)
	}
	c.wg.Go(func() { c.write(w) })
	return c
}

func (c *compressor) encode() {
	// Made on the first chunk: a small layer needs one encoder.
	var enc *zstd.Encoder
	for s := range c.work {
		if enc == nil {
			var err error
			enc, err = zstd.NewWriter(nil,
				zstd.WithEncoderLevel(level),
				zstd.WithEncoderConcurrency(1),
				zstd.WithWindowSize(windowSize),
				zstd.WithLowerEncoderMem(true),
				zstd.WithEncoderCRC(true),
			)
			if err != nil {
				s.err = fmt.Errorf("setting up zstd: %w", err)
				close(s.done)
				continue
			}
		}
		if s.err = context.Cause(c.ctx); s.err == nil {
			s.err = s.compress(enc)
		}
		close(s.done)
	}
}

func (c *compressor) write(w io.Writer) {
	for s := range c.ordered {
		<-s.done
		err := s.err
		if err == nil && context.Cause(c.ctx) == nil {
			_, err = w.Write(s.buf[:s.out])
		}
		if err != nil {
			// Stops whoever reads the tar. The first cause stays.
			c.cancel(fmt.Errorf("writing compressed bytes: %w", err))
		}
		c.free <- s
	}
}

// Write adds a piece of the tar.
func (c *compressor) Write(p []byte) (int, error) {
	written := 0
	for len(p) > 0 {
		if c.filling == nil {
			select {
			case <-c.ctx.Done():
				return written, context.Cause(c.ctx)
			case c.filling = <-c.free:
			}
			if c.filling.buf == nil {
				c.filling.buf = make([]byte, headroom+chunkSize)
			}
			c.filling.n = 0
		}
		s := c.filling
		n := copy(s.buf[headroom+s.n:], p)
		s.n += n
		p = p[n:]
		written += n
		if s.n == chunkSize {
			c.dispatch()
		}
	}
	return written, nil
}

func (c *compressor) dispatch() {
	s := c.filling
	c.filling = nil
	s.err = nil
	s.done = make(chan struct{})
	// Both channels hold all slots: neither send blocks.
	c.ordered <- s
	c.work <- s
}

// close ends the stream and waits for all of it to be written, or, if it is
// to be abandoned, for nothing to be written any more.
func (c *compressor) close(abandon bool) error {
	if abandon {
		c.cancel(context.Canceled)
	} else if c.filling != nil {
		c.dispatch()
	}
	close(c.work)
	close(c.ordered)
	c.wg.Wait()
	return context.Cause(c.ctx)
}
