"""The Lua module `time` does what Go's package of that name does, on the unit's clock and with UTC as local zone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from importlib.resources import files
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lupa.lua54 import LuaError

from node.machine.zones import zone_at
from tests.lua_chunks import TIME, Chunks

NOW_NS = 1_712_345_678_123_456_789
ZERO_S = -62_135_596_800
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
INT64 = st.integers(-(2**63), 2**63 - 1)
# Within what datetime can hold in every zone.
INSTANTS = st.integers(ZERO_S + 2 * 86_400, 253_402_300_799 - 2 * 86_400)
ZONES = ["Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "Africa/Casablanca", "UTC"]


def rules(zone: str) -> ZoneInfo:
    # Not ZoneInfo(zone), which prefers the files of the machine.
    with files("tzdata").joinpath("zoneinfo", *zone.split("/")).open("rb") as file:
        return ZoneInfo.from_file(file, zone)


RULES = {zone: rules(zone) for zone in ZONES}


def chunks() -> Chunks:
    loaded = Chunks(*TIME, now_ns=NOW_NS)
    loaded.host[b"zone"] = zone_at
    return loaded


VM = chunks()  # examples of one property share it: nothing here depends on what ran before
FORMAT = VM.run(
    """
    return function(unix_s, nsec, zone, layout)
      return time.unix(unix_s, nsec):in_location(time.load_location(zone)):format(layout)
    end"""
)
PARSE = VM.run(
    """
    return function(layout, text, zone)
      local t, err = time.parse(layout, text, zone and time.load_location(zone))
      if not t then return nil, err:message(), err:kind(), err:retryable() end
      return t:unix(), t:nanosecond(), t:location():string(), t:format("-07:00:00")
    end"""
)


def lua(source: str, *args: object) -> object:
    return chunks().run(source, *args)


# Layouts. The expectations are what Go 1.26 prints for the same calls.

AFTERNOON = 1_136_239_445, 6_007_008  # 2006-01-02 22:04:05.006007008 UTC, 15:04:05 in Denver
EARLY = 1_709_190_301, 500_000_000  # 2024-02-29 07:05:01.5 UTC, the 60th day


@pytest.mark.parametrize(
    ("layout", "afternoon", "early"),
    [
        ("2006 06", "2006 06", "2024 24"),
        ("January Jan 1 01", "January Jan 1 01", "February Feb 2 02"),
        ("Monday Mon", "Monday Mon", "Thursday Thu"),
        ("2 _2 02|__2 002", "2  2 02|  2 002", "29 29 29| 60 060"),
        ("15 3 03 4 04 5 05", "15 3 03 4 04 5 05", "00 12 12 5 05 1 01"),
        ("PM pm", "PM pm", "AM am"),
        (".0 .000 ,000000 .000000000", ".0 .006 ,006007 .006007008", ".5 .500 ,500000 .500000000"),
        (".9 .999 ,999999 .999999999", " .006 ,006007 .006007008", ".5 .5 ,5 .5"),
        ("MST -0700 -07:00 -07", "MST -0700 -07:00 -07", "MST -0700 -07:00 -07"),
        ("-070000 -07:00:00", "-070000 -07:00:00", "-070000 -07:00:00"),
        ("Z0700 Z07:00 Z07 Z070000 Z07:00:00", "-0700 -07:00 -07 -070000 -07:00:00", None),
        ("_2006 Janitor Month Pm .00x .001", "_2006 Janitor Month Pm .00x .001", "_2024 Janitor Month Pm .50x .002"),
        ("no element: abc", "no element: abc", "no element: abc"),
        ("", "", ""),
    ],
)
def test_every_element_of_a_layout_prints_as_in_go(layout: str, afternoon: str, early: str | None) -> None:
    assert FORMAT(*AFTERNOON, b"America/Denver", layout.encode()).decode() == afternoon
    if early is not None:
        assert FORMAT(*EARLY, b"America/Denver", layout.encode()).decode() == early


def test_the_z_elements_print_z_for_utc_only() -> None:
    layout = b"Z0700 Z07:00 Z07 Z070000 Z07:00:00 -0700"
    assert FORMAT(0, 0, b"UTC", layout) == b"Z Z Z Z Z +0000"
    assert FORMAT(0, 0, b"Asia/Kolkata", layout) == b"+0530 +05:30 +05 +053000 +05:30:00 +0530"


@pytest.mark.parametrize(
    ("constant", "text"),
    [
        ("RFC3339", "2006-01-02T15:04:05-07:00"),
        ("RFC3339NANO", "2006-01-02T15:04:05.006007008-07:00"),
        ("RFC822", "02 Jan 06 15:04 MST"),
        ("RFC822Z", "02 Jan 06 15:04 -0700"),
        ("RFC850", "Monday, 02-Jan-06 15:04:05 MST"),
        ("RFC1123", "Mon, 02 Jan 2006 15:04:05 MST"),
        ("RFC1123Z", "Mon, 02 Jan 2006 15:04:05 -0700"),
        ("KITCHEN", "3:04PM"),
        ("STAMP", "Jan  2 15:04:05"),
        ("STAMP_MILLI", "Jan  2 15:04:05.006"),
        ("STAMP_MICRO", "Jan  2 15:04:05.006007"),
        ("STAMP_NANO", "Jan  2 15:04:05.006007008"),
        ("DATE_TIME", "2006-01-02 15:04:05"),
        ("DATE_ONLY", "2006-01-02"),
        ("TIME_ONLY", "15:04:05"),
    ],
)
def test_layout_constants_print_as_in_go(constant: str, text: str) -> None:
    layout = VM.run(f"return time.{constant}")
    assert FORMAT(*AFTERNOON, b"America/Denver", layout).decode() == text


@pytest.mark.parametrize(
    ("layout", "text", "unix_s", "nsec"),
    [
        ("2006-01-02T15:04:05Z07:00", "2024-02-29T12:00:00Z", 1_709_208_000, 0),
        ("2006-01-02T15:04:05Z07:00", "2024-02-29T12:00:00.25+01:30", 1_709_202_600, 250_000_000),
        ("2006-01-02 15:04:05", "2024-02-29 12:00:00,123456789987", 1_709_208_000, 123_456_789),
        ("3:04PM", "3:04PM", -62_167_164_960, 0),  # year 0
        ("3:04pm", "12:00am", -62_167_219_200, 0),
        ("Jan _2 06", "feb  9 69", -28_166_400, 0),  # 69 is 1969, case does not count
        ("Jan _2 06", "FEB 9 68", 3_095_971_200, 0),
        ("2006-002", "2024-060", 1_709_164_800, 0),
        ("2006 __2", "2024  60", 1_709_164_800, 0),
        ("2006  01 02", "2024 02    29", 1_709_164_800, 0),  # runs of spaces are one
        ("2006-01-02 15:04:05 -070000", "2024-02-29 12:00:00 +000130", 1_709_207_910, 0),
        ("2006-01-02 15:04 MST", "2024-02-29 12:00 UTC", 1_709_208_000, 0),
        ("Mon 2006-01-02 .000", "Sun 2024-02-29 .120", 1_709_164_800, 120_000_000),  # the weekday is not compared
        ("2006-01-02.999", "2024-02-29", 1_709_164_800, 0),
    ],
)
def test_texts_parse_as_in_go(layout: str, text: str, unix_s: int, nsec: int) -> None:
    assert PARSE(layout.encode(), text.encode(), None)[:2] == (unix_s, nsec)


@pytest.mark.parametrize(
    ("layout", "text", "message"),
    [
        ("2006-01-02", "2024-13-01", 'parsing time "2024-13-01": month out of range'),
        ("2006-01-02", "2023-02-29", 'parsing time "2023-02-29": day out of range'),
        ("2006-01-02", "2024-02-01x", 'parsing time "2024-02-01x": extra text: "x"'),
        ("15:04", "24:00", 'parsing time "24:00": hour out of range'),
        ("3:04PM", "13:00PM", 'parsing time "13:00PM": hour out of range'),
        ("15:04", "23:60", 'parsing time "23:60": minute out of range'),
        ("15:04:05", "23:59:60", 'parsing time "23:59:60": second out of range'),
        ("2006-002", "2023-366", 'parsing time "2023-366": day-of-year out of range'),
        ("2006-002 Jan", "2023-032 Jan", 'parsing time "2023-032 Jan": day-of-year does not match month'),
        ("-0700", "+2500", 'parsing time "+2500": time zone offset hour out of range'),
        ("Jan 2", "Foo 3", 'parsing time "Foo 3" as "Jan 2": cannot parse "Foo 3" as "Jan"'),
        ("2006-01-02", "2024/01/02", 'parsing time "2024/01/02" as "2006-01-02": cannot parse "/01/02" as "-"'),
        ("15:04", "ab", 'parsing time "ab" as "15:04": cannot parse "ab" as "15"'),
        ("-07:00", "+0100", 'parsing time "+0100" as "-07:00": cannot parse "+0100" as "-07:00"'),
        ("MST", "xx", 'parsing time "xx" as "MST": cannot parse "xx" as "MST"'),
        (".000", ".12", 'parsing time ".12" as ".000": cannot parse ".12" as ".000"'),
        ('"2"', '"\té', r'parsing time "\"\x09\xc3\xa9" as "\"2\"": cannot parse "\x09\xc3\xa9" as "2"'),
    ],
)
def test_texts_that_do_not_fit_give_gos_message(layout: str, text: str, message: str) -> None:
    assert PARSE(layout.encode(), text.encode(), None) == (None, message.encode(), b"Invalid", False)


@pytest.mark.parametrize(
    ("text", "zone", "unix_s", "location", "offset"),
    [
        ("2024-07-01 12:00 CEST", "Europe/Berlin", 1_719_828_000, "Europe/Berlin", "+02:00:00"),
        # Not in force in July, but the zone knows it: the instant is that of the abbreviation.
        ("2024-07-01 12:00 CET", "Europe/Berlin", 1_719_831_600, "Europe/Berlin", "+02:00:00"),
        ("2024-07-01 12:00 LMT", "Asia/Kolkata", 1_719_813_992, "Asia/Kolkata", "+05:30:00"),
        ("2024-07-01 12:00 WAST", "Europe/Berlin", 1_719_835_200, "WAST", "+00:00:00"),
        ("2024-07-01 12:00 GMT+3", "Europe/Berlin", 1_719_835_200, "GMT+3", "+03:00:00"),
        ("2024-07-01 12:00 UTC", "Europe/Berlin", 1_719_835_200, "UTC", "+00:00:00"),
        ("2024-07-01 12:00 CEST", None, 1_719_835_200, "CEST", "+00:00:00"),
    ],
)
def test_zone_abbreviations_are_read_in_the_given_location(
    text: str, zone: str | None, unix_s: int, location: str, offset: str
) -> None:
    got = PARSE(b"2006-01-02 15:04 MST", text.encode(), zone and zone.encode())
    assert got == (unix_s, 0, location.encode(), offset.encode())


def test_a_numeric_offset_keeps_the_location_only_where_it_is_in_force() -> None:
    layout = b"2006-01-02 15:04 -0700"
    assert PARSE(layout, b"2024-07-01 12:00 +0200", b"Europe/Berlin")[2:] == (b"Europe/Berlin", b"+02:00:00")
    assert PARSE(layout, b"2024-07-01 12:00 +0100", b"Europe/Berlin")[2:] == (b"", b"+01:00:00")
    assert PARSE(layout, b"2024-07-01 12:00 +0000", None)[2:] == (b"Local", b"+00:00:00")
    assert PARSE(b"2006-01-02", b"2024-07-01", None)[2:] == (b"UTC", b"+00:00:00")


@given(INSTANTS, st.integers(0, 999_999), st.sampled_from(ZONES))
def test_format_agrees_with_datetime(unix_s: int, microsecond: int, zone: str) -> None:
    wall = (EPOCH + timedelta(seconds=unix_s, microseconds=microsecond)).astimezone(RULES[zone])
    got = FORMAT(unix_s, microsecond * 1000, zone.encode(), b"2006-01-02T15:04:05.000000 002 Mon Jan")
    assert got.decode() == f"{wall.year:04}" + wall.strftime("-%m-%dT%H:%M:%S.%f %j %a %b")


@given(INSTANTS, st.integers(0, 999_999_999), st.integers(-1439, 1439))
def test_what_rfc3339_prints_it_reads_back(unix_s: int, nsec: int, offset_minutes: int) -> None:
    text = VM.run(
        "local s, ns, o = ...; return time.unix(s, ns):in_location(time.fixed_zone('', o)):format(time.RFC3339NANO)",
        unix_s,
        nsec,
        offset_minutes * 60,
    )
    assert PARSE(b"2006-01-02T15:04:05Z07:00", text, None)[:2] == (unix_s, nsec)
    read = datetime.fromisoformat(text.decode())
    assert (read - EPOCH) // timedelta(microseconds=1) == unix_s * 1_000_000 + nsec // 1000
    assert read.tzinfo == timezone(timedelta(minutes=offset_minutes))


# Calendar and zones.


@given(
    st.integers(-400, 12_000),
    st.integers(-30, 30),
    st.integers(-400, 400),
    st.integers(-50, 50),
    st.integers(-100, 100),
    st.integers(-100, 100),
    st.integers(-(10**10), 10**10),
)
def test_fields_beyond_their_range_carry_over(y: int, mo: int, d: int, h: int, mi: int, s: int, ns: int) -> None:
    """400 years are 146,097 days, so any year can be checked with datetime."""
    cycles, year = divmod(y + (mo - 1) // 12, 400)
    first = datetime(year + 400, (mo - 1) % 12 + 1, 1, tzinfo=UTC)
    days = (cycles - 1) * 146_097 + (first - EPOCH).days + d - 1
    expected = (days * 86_400 + h * 3600 + mi * 60 + s) * 10**9 + ns
    got = VM.run("local t = time.date(...) return t:unix(), t:nanosecond()", y, mo, d, h, mi, s, ns)
    assert got == divmod(expected, 10**9)


def test_a_reading_that_is_skipped_or_twice_resolves_as_in_go() -> None:
    source = "return time.date(2024, {}, 0, 0, time.load_location('America/New_York')):format(time.RFC3339)"
    assert VM.run(source.format("3, 10, 2, 30")) == b"2024-03-10T01:30:00-05:00"
    assert VM.run(source.format("11, 3, 1, 30")) == b"2024-11-03T01:30:00-04:00"


def test_the_cache_of_offsets_answers_as_the_zone_does_around_its_changes() -> None:
    offset = VM.run(
        """
        return function(zone, unix_s)
          local t = time.unix(unix_s, 0):in_location(time.load_location(zone))
          return t:hour() * 3600 + t:minute() * 60 + t:second()
        end"""
    )
    for zone in ZONES[:5]:
        for hour in range(366 * 24):
            unix_s = 1_704_067_200 + hour * 3600
            known = zone_at(zone.encode(), unix_s)
            assert known is not None
            if hour % 24 in (0, 1, 2, 12, 23):
                assert offset(zone.encode(), unix_s) == (unix_s + known[0]) % 86_400


def test_a_full_cache_of_offsets_starts_again() -> None:
    for day in range(5000):
        text = FORMAT(day * 86_400, 0, b"Asia/Kolkata", b"2006-01-02 15:04")
        assert text.decode() == (EPOCH + timedelta(days=day, minutes=330)).strftime("%Y-%m-%d %H:%M")


def test_zones_beyond_the_calendar_of_datetime_follow_their_rule() -> None:
    berlin = b"Europe/Berlin"
    assert zone_at(berlin, 253_402_300_800 + 180 * 86_400) == (7200, b"CEST")  # July of year 10000
    assert zone_at(berlin, 10**18) == zone_at(berlin, 10**18 + 146_097 * 86_400)
    assert zone_at(berlin, -(2**63)) == zone_at(berlin, ZERO_S + 200 * 86_400) == (3208, b"LMT")


@pytest.mark.parametrize(
    "name", [b"", b"../zones", b"/etc/localtime", b"Europe", b"localtime", b"europe/berlin", b"\xff", b"UTC\x00"]
)
def test_only_listed_names_are_zones(name: bytes) -> None:
    """A name is never a path, and the machine's own zone is not reachable."""
    assert zone_at(name, 0) is None


def test_load_location() -> None:
    source = """
      local zone, err = time.load_location(...)
      if err then return nil, err:kind(), err:retryable() end
      return zone:string(), tostring(zone), type(zone) == "table" and K.type(zone)
    """
    assert lua(source, b"Europe/Berlin") == (b"Europe/Berlin", b"Europe/Berlin", b"userdata")
    assert lua(source, b"UTC") == (b"UTC", b"UTC", b"userdata")
    assert lua(source, b"") == (None, b"Invalid", False)
    assert lua(source, b"Mars/Olympus") == (None, b"NotFound", False)
    with pytest.raises(LuaError, match=r"test\.lua:2: bad argument #1 to 'time.load_location'"):
        lua(source, 7)


def test_a_cached_zone_gives_each_unit_a_location_of_its_own() -> None:
    """A shared object would carry the first unit's sequence number into the order of another unit's tables."""
    vm = chunks()
    source = "local l = time.load_location('Europe/Berlin') return l[K.SEQ], K.current.next_seq"
    assert vm.run(source) == (1, 2)
    vm.kernel[b"current"] = vm.lua.table_from({b"now": 0, b"next_seq": 1, b"deterministic": True})
    assert vm.run(source) == (1, 2)
    assert vm.run("return time.load_location('Europe/Berlin') == time.load_location('Europe/Berlin')") is True


def test_locations_of_the_module_have_an_order_of_their_own() -> None:
    assert lua("return time.utc[K.SEQ], time.localtz[K.SEQ]") == (-2, -1)


# Time.


def test_now_is_the_clock_of_the_unit_in_utc() -> None:
    assert lua("local t = time.now() return t:unix_nano(), t:location():string(), tostring(t)") == (
        NOW_NS,
        b"Local",
        b"2024-04-05 19:34:38.123456789 +0000 UTC",
    )


def test_fields_of_a_time() -> None:
    source = """
      local t = time.date(2024, 12, 31, 23, 59, 58, 7, time.fixed_zone("X", 3600))
      local y, m, d = t:date()
      local h, mi, s = t:clock()
      return y, m, d, h, mi, s, t:year(), t:month(), t:day(), t:hour(), t:minute(), t:second(), t:nanosecond(),
        t:weekday(), t:year_day(), t:unix(), t:utc():hour(), t:in_local():hour(), t:format_rfc3339()
    """
    assert lua(source) == (
        *(2024, 12, 31, 23, 59, 58, 2024, 12, 31, 23, 59, 58, 7),
        *(2, 366, 1_735_685_998, 22, 22, b"2024-12-31T23:59:58+01:00"),
    )


def test_the_zero_time_of_go() -> None:
    source = """
      local t = time.date(1, 1, 1, 0, 0, 0, 0, time.utc)
      return t:is_zero(), t:unix(), tostring(t), t:add(1):is_zero(), t:add_date(-1, 0, 0):year(),
        t:add_date(-2, 0, 0):format("2006 06"), t:add_date(12000, 0, 0):format("2006-01-02")
    """
    assert lua(source) == (True, ZERO_S, b"0001-01-01 00:00:00 +0000 UTC", False, 0, b"-0001 01", b"12001-01-01")


def test_add_date_keeps_the_clock_and_normalises() -> None:
    source = """
      local t = time.date(2024, 1, 31, 8, 0, 0, 0, time.load_location("Europe/Berlin"))
      return t:add_date(0, 1, 0):format(time.RFC3339), t:add_date(1, 5, -1):format(time.RFC3339)
    """
    assert lua(source) == (b"2024-03-02T08:00:00+01:00", b"2025-06-30T08:00:00+02:00")


def test_times_compare_by_instant_and_not_by_location() -> None:
    source = """
      local a = time.unix(5, 0)
      local b = time.unix(5, 0):in_location(time.fixed_zone("X", 3600))
      local c = time.unix(5, 1)
      return a == b, a:equal(b), a == c, a < c, a <= b, c > a, c:after(a), a:before(c), a:after(b), a == 5
    """
    assert lua(source) == (True, True, False, True, True, True, True, True, False, False)


@pytest.mark.parametrize(
    "source",
    [
        "return time.unix(0, 0) < time.parse_duration(1)",
        "return time.parse_duration(1) <= 1",
        "return time.unix(0, 0):sub(5)",
        "return time.unix(0, 0):add({})",
        "return time.unix(0, 0):add_date(1, 'x', 0)",
        "return time.unix(0, 0):format(nil)",
        "return time.unix(0, 0):in_location('UTC')",
        "return time.unix('x', 0)",
        "return time.date(2024, 1, 0/0, 0, 0, 0, 0)",
        "return time.date(2024, 1, 1, 0, 0, 0, 0, 'UTC')",
        "return time.parse('2006', 7)",
        "return time.fixed_zone('X', {})",
        "time.now().x = 1",
    ],
)
def test_wrong_types_raise_at_the_users_line(source: str) -> None:
    with pytest.raises(LuaError, match=r"^test\.lua:2: "):
        # A tail call would hide the user's frame, so the result goes through a local.
        lua("\n" + source.replace("return ", "local r = ") + "\nreturn r")


def test_numbers_with_a_fraction_are_cut() -> None:
    assert lua("return time.unix(1.9, -0.5):unix(), time.date(2024.7, 1, 1, 0, 0, 0, 0):year()") == (1, 2024)


@given(st.integers(-(10**11), 10**12), st.integers(0, 999_999_999), INT64)
def test_add_then_sub_is_exact(unix_s: int, nsec: int, duration_ns: int) -> None:
    source = """
      local s, ns, d = ...
      local t = time.unix(s, ns)
      local u = t:add(d)
      return u:unix(), u:nanosecond(), u:sub(t):nanoseconds()
    """
    expected = divmod(unix_s * 10**9 + nsec + duration_ns, 10**9)
    assert VM.run(source, unix_s, nsec, duration_ns) == (*expected, duration_ns)


@given(INSTANTS, INSTANTS, st.integers(0, 999_999_999))
def test_sub_stops_at_the_longest_duration(a_s: int, b_s: int, nsec: int) -> None:
    got = VM.run("local a, b, n = ... return time.unix(a, n):sub(time.unix(b, 0)):nanoseconds()", a_s, b_s, nsec)
    assert got == max(-(2**63), min(2**63 - 1, (a_s - b_s) * 10**9 + nsec))


@given(INSTANTS, st.integers(0, 999_999_999), INT64 | st.sampled_from([1, 7, 10**9, 3600 * 10**9, 7 * 86_400 * 10**9]))
def test_round_and_truncate_count_from_the_zero_time(unix_s: int, nsec: int, duration_ns: int) -> None:
    source = """
      local s, ns, d = ...
      local t, d = time.unix(s, ns), time.parse_duration(d)
      local r, u = t:round(d), t:truncate(d)
      return r:unix(), r:nanosecond(), u:unix(), u:nanosecond()
    """
    since_zero = (unix_s - ZERO_S) * 10**9 + nsec
    beyond = since_zero % duration_ns if duration_ns > 0 else 0
    down = since_zero - beyond
    rounded = down if 2 * beyond < duration_ns or not beyond else down + duration_ns
    expected = [divmod(value + ZERO_S * 10**9, 10**9) for value in (rounded, down)]
    assert VM.run(source, unix_s, nsec, duration_ns) == (*expected[0], *expected[1])


# Durations.


@pytest.mark.parametrize(
    ("text", "duration_ns", "shown"),
    [
        ("0", 0, "0s"),
        ("1ns", 1, "1ns"),
        ("1100ns", 1100, "1.1µs"),
        ("2.2ms", 2_200_000, "2.2ms"),
        ("3.3s", 3_300_000_000, "3.3s"),
        ("4m5.001s", 245_001_000_000, "4m5.001s"),
        ("1h30m45s", 5_445_000_000_000, "1h30m45s"),
        ("+1.5h", 5_400_000_000_000, "1h30m0s"),
        ("-1.5h", -5_400_000_000_000, "-1h30m0s"),
        (".5s", 500_000_000, "500ms"),
        ("5.s", 5_000_000_000, "5s"),
        ("1us2µs3μs", 6000, "6µs"),
        ("0.3333333333333333333h", 1_200_000_000_000, "20m0s"),
        ("0.830103483285477580700h", 2_988_372_539_827, "49m48.372539827s"),
        ("9223372036854775807ns", 2**63 - 1, "2562047h47m16.854775807s"),
        ("-9223372036854775808ns", -(2**63), "-2562047h47m16.854775808s"),
    ],
)
def test_duration_texts_read_and_print_as_in_go(text: str, duration_ns: int, shown: str) -> None:
    got = lua("local d = time.parse_duration(...) return d:nanoseconds(), tostring(d)", text.encode())
    assert got == (duration_ns, shown.encode())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", 'time: invalid duration ""'),
        ("-", 'time: invalid duration "-"'),
        ("3", 'time: missing unit in duration "3"'),
        ("1h2", 'time: missing unit in duration "1h2"'),
        (".s", 'time: invalid duration ".s"'),
        ("1x", 'time: unknown unit "x" in duration "1x"'),
        ("1 s", 'time: unknown unit " s" in duration "1 s"'),
        ("s1s", 'time: invalid duration "s1s"'),
        ("9223372036854775808ns", 'time: invalid duration "9223372036854775808ns"'),
        ("-9223372036854775809ns", 'time: invalid duration "-9223372036854775809ns"'),
        ("2562048h", 'time: invalid duration "2562048h"'),
        ("2562047h47m16.854775808s", 'time: invalid duration "2562047h47m16.854775808s"'),
        ("99999999999999999999999h", 'time: invalid duration "99999999999999999999999h"'),
    ],
)
def test_bad_duration_texts_give_gos_message(text: str, message: str) -> None:
    source = "local d, e = time.parse_duration(...) return d, e:message(), e:kind(), e:retryable()"
    assert lua(source, text.encode()) == (None, message.encode(), b"Invalid", False)


@given(INT64)
def test_what_a_duration_prints_it_reads_back(duration_ns: int) -> None:
    source = "return time.parse_duration(tostring(time.parse_duration(...))):nanoseconds()"
    assert VM.run(source, duration_ns) == duration_ns


@given(INT64)
def test_units_of_a_duration(duration_ns: int) -> None:
    source = """
      local d = time.parse_duration(...)
      return d:microseconds(), d:milliseconds(), d:seconds(), d:minutes(), d:hours()
    """
    us, ms, s, m, h = VM.run(source, duration_ns)
    magnitude, sign = abs(duration_ns), -1 if duration_ns < 0 else 1
    assert (us, ms) == (sign * (magnitude // 1000), sign * (magnitude // 10**6))
    assert [type(x) for x in (s, m, h)] == [float, float, float]
    assert s == pytest.approx(duration_ns / 1e9)
    assert m == pytest.approx(duration_ns / 6e10)
    assert h == pytest.approx(duration_ns / 3.6e12)


def test_durations_compare_by_length() -> None:
    source = """
      local d, half = time.parse_duration, time.parse_duration("30m")
      return d("60m") == d("1h"), half < d("1h"), half <= d("1800s"), half > d("1h"), half == 1800000000000
    """
    assert lua(source) == (True, True, True, False, False)


@pytest.mark.parametrize(
    ("value", "as_ns", "as_ms"),
    [
        ("1500", 1500, 1_500_000_000),
        ("1.5", 1, 1_500_000),
        ("-3", -3, -3_000_000),
        ("'1.5s'", 1_500_000_000, 1_500_000_000),
        ("time.parse_duration('2m')", 120_000_000_000, 120_000_000_000),
        ("9223372036854", 9_223_372_036_854, 9_223_372_036_854_000_000),
        ("9223372036855", 9_223_372_036_855, None),
        ("math.mininteger", -(2**63), None),
        ("1e300", None, None),
        ("0/0", None, None),
        ("'soon'", None, None),
        ("nil", None, None),
        ("{}", None, None),
        ("true", None, None),
    ],
)
def test_readers_of_duration_arguments(value: str, as_ns: int | None, as_ms: int | None) -> None:
    vm = chunks()
    for reader, expected in (("duration_ns", as_ns), ("duration_ms_option", as_ms)):
        source = (
            f"local ns, e = K.{reader}({value}, 'time.sleep') return ns, e and e:kind(), e and e:message():sub(1, 12)"
        )
        if expected is None:
            assert vm.run(source) == (None, b"Invalid", b"time.sleep: ")
        else:
            assert vm.run(source) == (expected, None, None)


def test_bad_duration_text_given_to_a_method_is_returned_not_raised() -> None:
    source = "local t, e = time.now():{}('x') return t, e:kind()"
    for method in ("add", "round", "truncate"):
        assert lua(source.format(method)) == (None, b"Invalid")


def test_constants_count_nanoseconds_months_and_days() -> None:
    units = ["NANOSECOND", "MICROSECOND", "MILLISECOND", "SECOND", "MINUTE", "HOUR"]
    counts = [lua(f"return time.{name}") for name in units]
    assert counts == [1, 10**3, 10**6, 10**9, 60 * 10**9, 3600 * 10**9]
    assert lua("return time.JANUARY, time.JUNE, time.DECEMBER, time.SUNDAY, time.SATURDAY") == (1, 6, 12, 0, 6)


def test_a_layout_dropped_from_the_cache_still_works() -> None:
    vm = chunks()
    for _ in range(2):
        for n in range(300):
            layout = b"2006 " + b"x" * n
            assert vm.run("return time.unix(0, 0):format(...)", layout) == b"1970 " + b"x" * n
