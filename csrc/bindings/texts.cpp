// Captions on their way to a text tower: words to ids, and token sequences packed for it.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <tuple>
#include <unordered_set>
#include <utility>
#include <vector>

#include "bindings/address.h"
#include "bindings/bind.h"
#include "core/texts/packing.h"
#include "core/texts/tables.h"
#include "core/texts/words.h"

namespace py = pybind11;

namespace {

// The ids of words, and of captions between a start and an end token. It keeps the GIL, which makes it safe to use from
// several threads: a batch of captions takes some tens of microseconds. But to make a list may collect garbage, whose
// finalizers, and threads that they let run, may use the table.
class Words {
 public:
  Words(py::int_ start, py::int_ end, size_t longest)
      : start_(std::move(start)), end_(std::move(end)), longest_(longest) {}

  // Per caption its ids, or None where it is tokenised as a whole or has unknown words; and those words, each once.
  py::tuple encode(const py::list& captions) const {
    py::list rows(captions.size());
    py::list unknown;
    std::unordered_set<std::string> seen;
    std::string lower;
    std::vector<std::string_view> words, missing;
    std::vector<size_t> numbers;
    for (size_t i = 0; i < captions.size(); ++i) {
      words.clear(), missing.clear(), numbers.clear();
      const std::string_view caption = ascii_of(captions[i]);
      const bool known = dpad::split_words(caption, longest_, lower, words) && table_.look_up(words, numbers, missing);
      rows[i] = known ? ids_of(numbers) : py::none();
      for (const std::string_view word : missing)
        if (seen.emplace(word).second) unknown.append(py::str(word.data(), word.size()));
    }
    return py::make_tuple(rows, unknown);
  }

  // A word keeps the ids that it got first.
  void learn(const std::vector<std::string>& words, const std::vector<std::vector<py::int_>>& ids) {
    if (words.size() != ids.size()) throw py::value_error("words and ids must be of one length");
    for (size_t i = 0; i < words.size(); ++i)
      if (table_.learn(words[i])) ids_.push_back(ids[i]);
  }

  size_t size() const { return table_.size(); }

  void clear() {
    ++times_cleared_;
    table_.clear();
    std::exchange(ids_, {});
  }

 private:
  // An ASCII string's characters; for another one a text that is tokenised as a whole, too.
  static std::string_view ascii_of(py::handle text) {
    PyObject* const object = text.ptr();
    if (!PyUnicode_Check(object) || !PyUnicode_IS_ASCII(object)) return "<";
    return {static_cast<const char*>(PyUnicode_DATA(object)), static_cast<size_t>(PyUnicode_GET_LENGTH(object))};
  }

  // Captions share the numbers of their words, which costs less than to make them for each. None where the table was
  // cleared while the list was made.
  py::object ids_of(const std::vector<size_t>& numbers) const {
    size_t size = 2;
    for (const size_t number : numbers) size += ids_[number].size();
    const int64_t before = times_cleared_;
    py::list found(size);
    if (times_cleared_ != before) return py::none();
    py::ssize_t at = 0;
    const auto append = [&](const py::int_& id) { PyList_SET_ITEM(found.ptr(), at++, id.inc_ref().ptr()); };
    append(start_);
    for (const size_t number : numbers)
      for (const py::int_& id : ids_[number]) append(id);
    append(end_);
    return std::move(found);
  }

  py::int_ start_, end_;
  size_t longest_;
  dpad::WordTable table_;
  std::vector<std::vector<py::int_>> ids_;  // by a word's number
  int64_t times_cleared_ = 0;
};

constexpr std::pair<const char*, dpad::Read> kReads[] = {
    {"last", dpad::Read::last},
    {"token", dpad::Read::token},
    {"largest", dpad::Read::largest},
};

dpad::Sequences sequences_of(const py::sequence& rows, dpad::Read read, int64_t token) {
  dpad::Sequences found;
  for (const py::object row : rows) {  // held, for a sequence may make its items as they are asked for
    const auto items = py::reinterpret_steal<py::object>(PySequence_Fast(row.ptr(), "rows must be sequences of ids"));
    if (!items) throw py::error_already_set();
    const size_t start = found.tokens.size();
    // What reads a number that is no int may change the list.
    for (py::ssize_t j = 0; j < PySequence_Fast_GET_SIZE(items.ptr()); ++j) {
      const auto number = py::reinterpret_borrow<py::object>(PySequence_Fast_GET_ITEM(items.ptr(), j));
      found.tokens.push_back(PyLong_AsLongLong(number.ptr()));
      if (found.tokens.back() == -1 && PyErr_Occurred() != nullptr) throw py::error_already_set();
    }
    const int64_t* tokens = found.tokens.data();
    found.tokens.resize(start + dpad::cut_length({tokens + start, tokens + found.tokens.size()}, read, token));
    found.close();
  }
  return found;
}

py::array_t<int64_t> array_of(std::vector<int64_t> numbers) {
  auto* kept = new std::vector<int64_t>(std::move(numbers));
  const py::capsule owner(kept, [](void* memory) { delete static_cast<std::vector<int64_t>*>(memory); });
  return py::array_t<int64_t>(static_cast<py::ssize_t>(kept->size()), kept->data(), owner);
}

// Packs N rows of ids, cut behind the token that is read, in pieces of at most `most` tokens and `sequences` sequences.
// Returns int64 [N], where each row stands among the different ones in order; and each piece as its numbers, see
// `dpad::PackedTexts`, and its rows, keys and sequences.
py::tuple pack_texts(const py::sequence& rows, const std::string& read, int64_t token, int64_t most,
                     int64_t sequences) {
  const dpad::Sequences given = sequences_of(rows, named("read", read, kReads), token);
  dpad::Order order;
  std::vector<dpad::PackedBlock> blocks;
  without_gil([&] {
    order = dpad::in_order(given);
    const std::vector<int64_t> starts = dpad::cut_pieces(given, order.sequences, most, sequences);
    for (size_t i = 0; i + 1 < starts.size(); ++i)
      blocks.push_back(dpad::pack_texts(given, order.sequences, starts[i], starts[i + 1]));
  });
  py::list pieces;
  for (dpad::PackedBlock& block : blocks)
    pieces.append(py::make_tuple(array_of(std::move(block.numbers)), block.rows, block.keys, block.sequences));
  return py::make_tuple(array_of(std::move(order.places)), pieces);
}

// The address of a piece's numbers, and its sizes.
using PackedArgs = std::tuple<Address, int64_t, int64_t, int64_t>;

dpad::PackedTexts packed_of(const PackedArgs& args) {
  const auto& [numbers, rows, keys, sequences] = args;
  return dpad::packed_texts(at<const int64_t>(numbers), rows, keys, sequences);
}

void write_variable_lengths(const PackedArgs& texts, const std::vector<int64_t>& rooms, Address out) {
  dpad::write_variable_lengths(packed_of(texts), rooms, at<int64_t>(out));
}

// Bins of `width` slots that the texts need.
int64_t bins_of(const PackedArgs& texts, int64_t width) {
  check_range("width", width, 1, kMostItems);
  return (dpad::places_in_bins(packed_of(texts), width).back() + width - 1) / width;
}

void write_bins(const PackedArgs& texts, int64_t width, const std::vector<int64_t>& rooms, Address out) {
  check_range("width", width, 1, kMostItems);
  dpad::write_bins(packed_of(texts), width, rooms, at<int64_t>(out));
}

}  // namespace

void bind_texts(py::module_& m) {
  py::class_<Words>(m, "WordTable")
      .def(py::init<py::int_, py::int_, size_t>())
      .def("encode", &Words::encode)
      .def("learn", &Words::learn)
      .def("clear", &Words::clear)
      .def("__len__", &Words::size);
  m.def("pack_texts", &pack_texts);
  m.def("write_variable_lengths", &write_variable_lengths);
  m.def("bins_of", &bins_of);
  m.def("write_bins", &write_bins);
}
