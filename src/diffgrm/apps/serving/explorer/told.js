// What a model is told besides the items of a history, and how a question tells it. Nothing here touches the page.

const MINUTE = 60_000;
const DAY = 24 * 60 * MINUTE;

/** What a model is told that is told of nothing, or is not known yet; see `told` of GET /model. */
export const NOTHING = { times: [], at: false, event_columns: {}, user_columns: {} };

/** A moment as fields and requests have it: in UTC, to the minute. */
export const written = (milliseconds) => new Date(milliseconds).toISOString().slice(0, 16);

const read = (text) => Date.parse(`${text}Z`);

/** The moment asked for. */
export const momentOf = (view, now) => view.at ?? now;

/** When each event was: as it was said, or a day before the next one; the newest at the moment asked for. */
export function timesOf(view, now) {
  const times = [];
  let next = read(momentOf(view, now)) + DAY;
  for (const { time } of view.history.toReversed()) {
    next = time === null ? next - DAY : read(time);
    times.unshift(written(next));
  }
  return times;
}

/** Values by column with others in their place; null takes one out. */
export const merged = (values, others) => Object.fromEntries(Object.entries({ ...values, ...others }).filter(([, value]) => value !== null));

const named = (values, columns) => Object.fromEntries(Object.entries(values).filter(([column, value]) => columns[column]?.includes(value)));

/** The history as requests have it: ids, or objects where the model is told more of its events. */
export function eventsOf(view, told, now) {
  const [timed, valued] = [told.times.length > 0, Object.keys(told.event_columns).length > 0];
  if (!timed && !valued) return view.history.map(({ id }) => id);
  const times = timesOf(view, now);
  return view.history.map(({ id, values }, place) => ({
    item_id: id,
    ...(timed ? { time: times[place] } : {}),
    ...(valued ? { values: named(values, told.event_columns) } : {}),
  }));
}

/** What is told of the moment and of the user; `profile` and `at` are missing where the model is not told of them. */
export function besides(view, told, now) {
  return {
    ...(told.at ? { at: momentOf(view, now) } : {}),
    ...(Object.keys(told.user_columns).length ? { profile: named(view.user, told.user_columns) } : {}),
  };
}

/** The body of POST /recommend. */
export function listQuestion(view, told, now) {
  const { k, beam, candidates, excludeSeen } = view;
  const { profile, ...at } = besides(view, told, now);
  const profiles = profile ? { profiles: [profile] } : {};
  const asked = { k, beam, candidates, exclude_seen: excludeSeen, on_empty: "skip", titles: true };
  return { histories: [eventsOf(view, told, now)], ...asked, ...at, ...profiles };
}
