import type { FrameHeader } from './wire';

export interface FrameArray {
  data: Float32Array | Float64Array;
  shape: number[];
}

/** Named arrays of one binary reply. */
export type Frame = Map<string, FrameArray>;

const WIDTH = { f4: 4, f8: 8 } as const;

/** Decodes a frame (see wire.ts). The arrays are views on the reply: nothing is copied. */
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
