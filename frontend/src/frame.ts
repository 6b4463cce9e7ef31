/**
 * Binary replies. `GET` routes, relative to `data/plugin/bn_lens/`:
 *   losses?run=R                 -> steps f64 [P], wall_times f64 [P], one f32 [P] per `${probe}/${row}` with data
 *   series?run=R&row=ROW         -> steps f64 [T], wall_times f64 [T], values f32 [T, L]
 *                                   (ROW: any of metadata.LAYER_ROWS, "steps_to_converge" or "variance_ratio")
 *   layer?run=R&layer=3          -> steps f64 [T], wall_times f64 [T], one f32 [T] per row of metadata.LAYER_ROWS
 *   channels?run=R&layer=3       -> steps f64 [S], values f32 [S, 4, C] (metadata.CHANNEL_ROWS)
 * The JSON routes (runs, overview, summary) are in wire.ts. An error is {"error": "a sentence"} with its status.
 *
 * A frame is: uint32 LE length n of the header; n bytes of UTF-8 JSON, padded with spaces so that 4 + n is a multiple
 * of 8; then the arrays one after another, little endian, each padded to 8 bytes.
 */
interface FrameHeader {
  arrays: { name: string; dtype: 'f4' | 'f8'; shape: number[] }[];
}

export interface FrameArray {
  data: Float32Array | Float64Array;
  shape: number[];
}

/** Named arrays of one binary reply. */
export type Frame = Map<string, FrameArray>;

const WIDTH = { f4: 4, f8: 8 } as const;

/** Decodes a frame . The arrays are views on the reply: nothing is copied. */
export function decodeFrame(buffer: ArrayBuffer): Frame {
  if (buffer.byteLength < 4) throw new Error(`A frame has at least 4 bytes, this one ${buffer.byteLength}.`);
  const length = new DataView(buffer).getUint32(0, true);
  if (4 + length > buffer.byteLength) {
    throw new Error(`The frame's header of ${length} bytes is longer than the reply (${buffer.byteLength}).`);
  }
  const text = new TextDecoder().decode(new Uint8Array(buffer, 4, length));
  const header = JSON.parse(text) as FrameHeader;
  const frame: Frame = new Map();
  let offset = pad(4 + length);
  for (const { name, dtype, shape } of header.arrays) {
    const count = shape.reduce((a, b) => a * b, 1);
    const bytes = count * WIDTH[dtype];
    if (offset + bytes > buffer.byteLength) {
      throw new Error(
        `The frame ends inside "${name}": ${buffer.byteLength} bytes, ${offset + bytes} expected.`,
      );
    }
    const data =
      dtype === 'f4' ? new Float32Array(buffer, offset, count) : new Float64Array(buffer, offset, count);
    frame.set(name, { data, shape });
    offset += pad(bytes);
  }
  return frame;
}

function pad(bytes: number): number {
  return Math.ceil(bytes / 8) * 8;
}

/** One array of a frame, empty where it was not sent. */
export function column(frame: Frame | null, name: string): Float32Array | Float64Array {
  return frame?.get(name)?.data ?? new Float32Array(0);
}
