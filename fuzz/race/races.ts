// Every race there is.

import type { Race } from './race.ts';
import { receivedDescriptors, receivedMerged, receivedNext } from './received-descriptors.ts';
import { RECEIVED_ID, RECEIVED_NEXT, RECEIVED_SPLIT, receivedEvents } from './received-rings.ts';
import { sentDescriptors, sentTables } from './sent-descriptors.ts';
import { sentHeaders } from './sent-headers.ts';
import { SENT_PACKED, SENT_SPLIT } from './sent-rings.ts';

const FORMATS = [false, true];

export const RACES: readonly Race[] = [
  ...FORMATS.flatMap((packed) => [
    ...sentDescriptors(packed),
    ...sentTables(packed),
    ...(packed ? SENT_PACKED : SENT_SPLIT),
    ...sentHeaders(packed, false),
    ...sentHeaders(packed, true),
  ]),
  ...FORMATS.flatMap((packed) => [
    ...receivedDescriptors(packed, false),
    ...receivedDescriptors(packed, true),
    receivedMerged(packed),
    ...(packed
      ? [RECEIVED_NEXT, RECEIVED_ID]
      : [receivedNext(false), receivedNext(true), ...RECEIVED_SPLIT]),
    ...receivedEvents(packed),
  ]),
];
