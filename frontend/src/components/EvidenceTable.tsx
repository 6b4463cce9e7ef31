import { number } from '../format';
import type { Evidence } from '../wire';

/** Measured numbers, each beside the value that it is compared with. */
export function EvidenceTable({ evidence }: { evidence: readonly Evidence[] }) {
  return (
    <table class="evidence">
      <thead>
        <tr>
          <th scope="col">Measured</th>
          <th scope="col">value</th>
          <th scope="col" data-tip="Empty where the number is for information.">
            compared with
          </th>
        </tr>
      </thead>
      <tbody>
        {evidence.map(({ label, value, limit, unit, against }) => (
          <tr key={label}>
            <th scope="row">{label}</th>
            <td class={typeof value === 'string' ? 'words' : ''}>
              {written(value)}
              {unit && value !== null && <span class="unit"> {unit}</span>}
            </td>
            <td class="limit">{limit !== null && `${against} ${written(limit)}`}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

export function written(value: Evidence['value']): string {
  return typeof value === 'string' ? value : number(value);
}
