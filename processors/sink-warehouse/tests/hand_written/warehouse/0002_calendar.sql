-- Days from 1900 to 2050 and the minutes of a day. Keys: yyyymmdd, hhmm. The weekend is Friday and Saturday, as in
-- Sudan; holidays are for the operator to fill in. The fiscal year is the calendar year.
CREATE TABLE dim.date_dimension (
    date_key       integer  PRIMARY KEY,
    full_date      date     NOT NULL UNIQUE,
    year           integer  NOT NULL,
    quarter        integer  NOT NULL,
    month          integer  NOT NULL,
    month_name     text     NOT NULL,
    iso_week       integer  NOT NULL,
    day_of_month   integer  NOT NULL,
    day_of_week    integer  NOT NULL,
    day_name       text     NOT NULL,
    is_weekend     boolean  NOT NULL,
    is_holiday     boolean  NOT NULL DEFAULT false,
    holiday_name   text,
    fiscal_year    integer  NOT NULL,
    fiscal_quarter integer  NOT NULL,
    fiscal_month   integer  NOT NULL
);
COMMENT ON COLUMN dim.date_dimension.day_of_week IS 'ISO: 1 is Monday, 7 is Sunday';

INSERT INTO dim.date_dimension
SELECT
    extract(year FROM d)::integer * 10000 + extract(month FROM d)::integer * 100 + extract(day FROM d)::integer,
    d, extract(year FROM d), extract(quarter FROM d), extract(month FROM d),
    (ARRAY['January', 'February', 'March', 'April', 'May', 'June', 'July', 'August', 'September', 'October',
           'November', 'December'])[extract(month FROM d)::integer],
    extract(week FROM d), extract(day FROM d), extract(isodow FROM d),
    (ARRAY['Monday', 'Tuesday', 'Wednesday', 'Thursday', 'Friday', 'Saturday', 'Sunday'])[extract(isodow FROM d)::integer],
    extract(isodow FROM d) IN (5, 6), false, NULL,
    extract(year FROM d), extract(quarter FROM d), extract(month FROM d)
FROM (SELECT generate_series(date '1900-01-01', date '2050-12-31', interval '1 day')::date AS d) AS days;

CREATE TABLE dim.time_dimension (
    time_key    integer PRIMARY KEY,
    full_time   time    NOT NULL UNIQUE,
    hour        integer NOT NULL,
    minute      integer NOT NULL,
    am_pm       text    NOT NULL,
    hour_12     integer NOT NULL,
    time_period text    NOT NULL
);

INSERT INTO dim.time_dimension
SELECT
    m / 60 * 100 + m % 60, time '00:00' + m * interval '1 minute', m / 60, m % 60,
    CASE WHEN m < 720 THEN 'AM' ELSE 'PM' END, (m / 60 + 11) % 12 + 1,
    CASE WHEN m < 360 THEN 'night' WHEN m < 720 THEN 'morning' WHEN m < 1080 THEN 'afternoon' ELSE 'evening' END
FROM generate_series(0, 1439) AS m;

-- Keys of an instant, in UTC.
CREATE FUNCTION dim.date_key(at timestamptz) RETURNS integer LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN extract(year FROM at AT TIME ZONE 'UTC')::integer * 10000
    + extract(month FROM at AT TIME ZONE 'UTC')::integer * 100
    + extract(day FROM at AT TIME ZONE 'UTC')::integer;
CREATE FUNCTION dim.time_key(at timestamptz) RETURNS integer LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN extract(hour FROM at AT TIME ZONE 'UTC')::integer * 100 + extract(minute FROM at AT TIME ZONE 'UTC')::integer;
