#include <algorithm>
#include <array>
#include <numeric>
#include <set>
#include <utility>

#include "model/template_arguments.h"
#include "model/template_eval.h"
#include "model/template_filters.h"
#include "model/template_operators.h"
#include "model/template_path.h"

// Filters of lists and dictionaries.
namespace caravan::tmpl {
namespace {

Value lower_case(Interpreter& in, const Value& v) {
  return v.is_string() ? in.text(text::lower(v.text())) : v;
}

void need_iterable(const Value& v) {
  if (!is_iterable(v)) raise("'{}' object is not iterable", type_name(v));
}

Value length_filter(Interpreter& in, const Value& self, const Arguments& arguments) {
  const Bound bound("length", arguments, {});
  if (self.is(Kind::kLoop)) return Value::integer(self.as<Loop>().size(in));
  const auto size = length(self);
  if (!size) raise("object of type '{}' has no len()", type_name(self));
  return Value::integer(*size);
}

Value first(Interpreter& in, const Value& self, const Arguments& arguments) {
  const Bound bound("first", arguments, {});
  Cursor cursor(self);
  Value item;
  return cursor.next(in, item) ? item : in.undefined("No first item, sequence was empty.");
}

Value last(Interpreter& in, const Value& self, const Arguments& arguments) {
  const Bound bound("last", arguments, {});
  const auto size = length(self);
  if (!size) raise("'{}' object is not reversible", type_name(self));
  if (*size == 0) return in.undefined("No last item, sequence was empty.");
  if (self.is_string() || self.is_sequence() || self.is(Kind::kRange)) return at_index(in, self, -1);
  return in.collect(self).back();
}

Value list_filter(Interpreter& in, const Value& self, const Arguments& arguments) {
  const Bound bound("list", arguments, {});
  return in.list(in.collect(self));
}

Value reverse(Interpreter& in, const Value& self, const Arguments& arguments) {
  const Bound bound("reverse", arguments, {});
  if (self.is_string()) {
    std::string out;
    std::vector<size_t> starts;
    for (size_t i = 0; i < self.text().size(); text::decode(self.text(), i)) starts.push_back(i);
    for (size_t i = starts.size(), end = self.text().size(); i-- > 0; end = starts[i])
      out += self.text().substr(starts[i], end - starts[i]);
    return in.text(std::move(out), self.is_markup());
  }
  need_iterable(self);
  std::vector<Value> items = in.collect(self);
  std::reverse(items.begin(), items.end());
  const Value turned = in.list(std::move(items));
  if (self.is(Kind::kIterator)) return turned;
  return in.iterator(
      "list_reverseiterator", turned,
      [cursor = Cursor(turned)](Interpreter& i, Value& item) mutable { return cursor.next(i, item); });
}

// Python compares lists of keys: what is equal is never asked for its order.
bool key_less(Interpreter& in, const std::vector<Value>& a, const std::vector<Value>& b) {
  for (size_t i = 0; i < a.size(); ++i)
    if (!same(a[i], b[i]) && !in.equals(a[i], b[i])) return less(in.meter(), a[i], b[i]);
  return false;
}

Value sort(Interpreter& in, const Value& self, const Arguments& arguments) {
  const Bound bound("sort", arguments, {"reverse", "case_sensitive", "attribute"});
  const std::vector<Path> paths = Path::several(bound.get(2, Value::none()));
  const bool fold = !bound.flag(1, false);
  const std::vector<Value> items = in.collect(self);
  std::vector<std::vector<Value>> keys(items.size());
  for (size_t i = 0; i < items.size(); ++i)
    for (const Path& path : paths) {
      const Value key = path.get(in, items[i]);
      keys[i].push_back(fold ? lower_case(in, key) : key);
    }
  std::vector<size_t> order(items.size());
  std::iota(order.begin(), order.end(), size_t{0});
  const bool reversed = bound.flag(0, false);
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return reversed ? key_less(in, keys[b], keys[a]) : key_less(in, keys[a], keys[b]);
  });
  std::vector<Value> sorted;
  for (size_t i : order) sorted.push_back(items[i]);
  return in.list(std::move(sorted));
}

Value unique(Interpreter& in, const Value& self, const Arguments& arguments) {
  const Bound bound("unique", arguments, {"case_sensitive", "attribute"});
  const Path path(bound.get(1, Value::none()));
  const bool fold = !bound.flag(0, false);
  need_iterable(self);
  return in.iterator("generator", self,
                     [cursor = Cursor(self), path, fold, seen = std::set<Value, KeyLess>()](
                         Interpreter& i, Value& item) mutable {
                       while (cursor.next(i, item)) {
                         i.meter().step();
                         Value key = path.get(i, item);
                         if (fold) key = lower_case(i, key);
                         check_key(key);
                         if (seen.insert(std::move(key)).second) return true;
                       }
                       return false;
                     });
}

template <bool kLargest>
Value extreme(Interpreter& in, const Value& self, const Arguments& arguments) {
  const Bound bound("min", arguments, {"case_sensitive", "attribute"});
  const Path path(bound.get(1, Value::none()));
  const auto key_of = [&](const Value& item) {
    const Value key = path.get(in, item);
    return bound.flag(0, false) ? key : lower_case(in, key);
  };
  Cursor cursor(self);
  Value best;
  if (!cursor.next(in, best)) return in.undefined("No aggregated item, sequence was empty.");
  Value best_key = key_of(best);
  for (Value item; cursor.next(in, item);) {
    Value key = key_of(item);
    if (kLargest ? !less(in.meter(), best_key, key) : !less(in.meter(), key, best_key)) continue;
    best = item;
    best_key = std::move(key);
  }
  return best;
}

Value sum(Interpreter& in, const Value& self, const Arguments& arguments) {
  const Bound bound("sum", arguments, {"attribute", "start"});
  const Path path(bound.get(0, Value::none()));
  Value total = bound.get(1, Value::integer(0));
  if (total.is_string()) raise("sum() can't sum strings");
  Cursor cursor(self);
  for (Value item; cursor.next(in, item);) total = binary(in, Operator::kAdd, total, path.get(in, item));
  return total;
}

Value join(Interpreter& in, const Value& self, const Arguments& arguments) {
  const Bound bound("join", arguments, {"d", "attribute"});
  const Path path(bound.get(1, Value::none()));
  const std::string separator = bound.has(0) ? in.str(bound[0]) : "";
  std::string joined;
  Cursor cursor(self);
  bool first_item = true;
  for (Value item; cursor.next(in, item);) {
    in.meter().step();
    if (!std::exchange(first_item, false)) joined += separator;
    joined += in.str(path.get(in, item));
    in.meter().fits(joined.size());
  }
  return in.text(std::move(joined));
}

Value batch(Interpreter& in, const Value& self, const Arguments& arguments) {
  const Bound bound("batch", arguments, {"linecount", "fill_with"}, 1);
  const int64_t size = bound.integer(0, 1);
  const Value fill = bound.get(1, Value::none());
  if (!fill.is_none() && size > static_cast<int64_t>(limits::kMaxTemplateInputValues))
    fail(ErrorCode::kLimit, "a batch of {}", size);
  std::vector<Value> batches;
  std::vector<Value> now;
  for (Value& item : in.collect(self)) {
    if (static_cast<int64_t>(now.size()) == size) batches.push_back(in.list(std::exchange(now, {})));
    now.push_back(std::move(item));
  }
  if (!now.empty()) {
    while (!fill.is_none() && static_cast<int64_t>(now.size()) < size) now.push_back(fill);
    batches.push_back(in.list(std::move(now)));
  }
  const Value all = in.list(std::move(batches));
  return in.iterator("generator", all, [cursor = Cursor(all)](Interpreter& i, Value& item) mutable {
    return cursor.next(i, item);
  });
}

Value slice_filter(Interpreter& in, const Value& self, const Arguments& arguments) {
  const Bound bound("slice", arguments, {"slices", "fill_with"}, 1);
  const int64_t slices = bound.integer(0, 1);
  if (slices == 0) raise("division by zero");
  const Value fill = bound.get(1, Value::none());
  const std::vector<Value> items = in.collect(self);
  in.meter().step(static_cast<uint64_t>(std::max<int64_t>(slices, 0)));
  std::vector<Value> parts;
  size_t at = 0;
  for (int64_t i = 0; i < slices; ++i) {
    const auto count = static_cast<size_t>(slices);
    const size_t extra = items.size() % count;
    const size_t size = items.size() / count + (static_cast<size_t>(i) < extra);
    const auto begin = items.begin() + static_cast<int64_t>(at);
    std::vector<Value> part(begin, begin + static_cast<int64_t>(size));
    if (!fill.is_none() && static_cast<size_t>(i) >= extra) part.push_back(fill);
    parts.push_back(in.list(std::move(part)));
    at += size;
  }
  const Value all = in.list(std::move(parts));
  return in.iterator("generator", all, [cursor = Cursor(all)](Interpreter& i, Value& item) mutable {
    return cursor.next(i, item);
  });
}

Value items_filter(Interpreter& in, const Value& self, const Arguments& arguments) {
  const Bound bound("items", arguments, {});
  Cursor cursor;
  if (self.is(Kind::kDict)) cursor = Cursor(in.view(self, View::Part::kItems));
  const bool is_mapping = self.is(Kind::kDict) || self.is_undefined();
  return in.iterator("generator", self, [cursor, is_mapping](Interpreter& i, Value& item) mutable {
    if (!is_mapping) raise("Can only get item pairs from a mapping.");
    return cursor.next(i, item);
  });
}

Value dict_sort(Interpreter& in, const Value& self, const Arguments& arguments) {
  const Bound bound("dictsort", arguments, {"case_sensitive", "by", "reverse"});
  const std::string_view by = bound.text(1, "key");
  if (by != "key" && by != "value") raise("You can only sort by either \"key\" or \"value\"");
  if (self.is_undefined()) raise("{}", self.as<Undefined>().message());
  if (!self.is(Kind::kDict)) raise("'{} object' has no attribute 'items'", type_name(self));
  const auto& entries = self.dict().entries;
  std::vector<Value> keys;
  for (const auto& [key, value] : entries) {
    const Value& sorted_by = by == "key" ? key : value;
    keys.push_back(bound.flag(0, false) ? sorted_by : lower_case(in, sorted_by));
  }
  std::vector<size_t> order(entries.size());
  std::iota(order.begin(), order.end(), size_t{0});
  const bool reversed = bound.flag(2, false);
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return reversed ? less(in.meter(), keys[b], keys[a]) : less(in.meter(), keys[a], keys[b]);
  });
  std::vector<Value> pairs;
  for (size_t i : order) pairs.push_back(in.tuple({entries[i].first, entries[i].second}));
  return in.list(std::move(pairs));
}

Value group_by(Interpreter& in, const Value& self, const Arguments& arguments) {
  const Bound bound("groupby", arguments, {"attribute", "default", "case_sensitive"}, 1);
  const Path path(bound[0], bound.get(1, Value::none()));
  const bool fold = !bound.flag(2, false);
  const std::vector<Value> items = in.collect(self);
  std::vector<Value> keys;
  for (const Value& item : items) {
    const Value key = path.get(in, item);
    keys.push_back(fold ? lower_case(in, key) : key);
  }
  std::vector<size_t> order(items.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return less(in.meter(), keys[a], keys[b]); });
  std::vector<Value> groups;
  for (size_t i = 0; i < order.size();) {
    const size_t begin = i;
    std::vector<Value> members;
    for (; i < order.size() && in.equals(keys[order[i]], keys[order[begin]]); ++i)
      members.push_back(items[order[i]]);
    if (members.empty()) members.push_back(items[order[i++]]);  // a key that does not even equal itself
    Value pair = in.tuple({path.get(in, members.front()), in.list(members)});
    pair.as<List>().group = true;
    groups.push_back(std::move(pair));
  }
  return in.list(std::move(groups));
}

using Entry = std::pair<std::string_view, NativeFunction>;
constexpr std::array<Entry, 17> kFilters = {{{"length", length_filter},
                                             {"count", length_filter},
                                             {"first", first},
                                             {"last", last},
                                             {"list", list_filter},
                                             {"reverse", reverse},
                                             {"sort", sort},
                                             {"unique", unique},
                                             {"min", extreme<false>},
                                             {"max", extreme<true>},
                                             {"sum", sum},
                                             {"join", join},
                                             {"batch", batch},
                                             {"slice", slice_filter},
                                             {"items", items_filter},
                                             {"dictsort", dict_sort},
                                             {"groupby", group_by}}};

}  // namespace

NativeFunction find_sequence_filter(std::string_view name) {
  for (const auto& [key, filter] : kFilters)
    if (key == name) return filter;
  return nullptr;
}

}  // namespace caravan::tmpl
