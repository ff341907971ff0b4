#include "peers/ticket.h"

#include <gtest/gtest.h>

#include <functional>
#include <thread>

#include "base/error.h"
#include "base/limits.h"
#include "peers/doorkeeper.h"
#include "peers/pins.h"
#include "store/memory_store.h"
#include "tests/support/link_peer.h"

namespace caravan {
namespace {

using test::LinkPeer;

ErrorCode code_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.code();
  }
  return ErrorCode::kCancelled;
}

Ticket ticket_of(uint64_t seed, int64_t expires_unix = 0) {
  SeededRandom random(seed);
  return make_ticket(make_key_pair(random).public_key, {"10.0.0.7:4001", "[fe80::2]:4001", "head.example:9"},
                     expires_unix, random);
}

TEST(Ticket, IsOneLineThatReadsBack) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    const Ticket ticket = ticket_of(seed, static_cast<int64_t>(seed * 1'000'000'007));
    const std::string text = to_text(ticket);
    EXPECT_EQ(text.find_first_of(" \n\t+/="), std::string::npos) << text;
    const Ticket back = parse_ticket("  " + text + "\r\n");
    EXPECT_EQ(back.head, ticket.head);
    EXPECT_TRUE(back.secret == ticket.secret);
    EXPECT_EQ(back.expires_unix, ticket.expires_unix);
    EXPECT_EQ(back.endpoints, ticket.endpoints);
    EXPECT_EQ(one_time_keys(back).public_key, open_ticket(ticket).one_time_key);
  }
  EXPECT_NE(one_time_keys(ticket_of(1)).public_key, one_time_keys(ticket_of(2)).public_key);
}

TEST(Ticket, AMistypedOneIsNoTicket) {
  const std::string text = to_text(ticket_of(3));
  for (size_t at = 9; at < text.size(); ++at) {
    std::string typo = text;
    typo[at] = typo[at] == 'A' ? 'B' : 'A';
    EXPECT_EQ(code_of([&] { parse_ticket(typo); }), ErrorCode::kInvalidArgument) << at;
    EXPECT_EQ(code_of([&] { parse_ticket(text.substr(0, at)); }), ErrorCode::kInvalidArgument) << at;
  }
  for (const std::string& other :
       {std::string(), std::string("hello"), std::string("caravan1:"), std::string("caravan:abc"),
        "caravan1:" + std::string(limits::kMaxTicketBytes + 1, 'A'), text + "A"})
    EXPECT_EQ(code_of([&] { parse_ticket(other); }), ErrorCode::kInvalidArgument) << other;
}

TEST(Ticket, ANewerVersionSaysSo) {
  try {
    parse_ticket("caravan2:whatever");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
    EXPECT_NE(error.message().find("version 2"), std::string::npos) << error.message();
  }
}

TEST(Pins, OutliveTheirObjectAndKeepNoSecret) {
  const auto store = std::make_shared<MemoryStore>();
  const Ticket ticket = ticket_of(5), late = ticket_of(6, 1000);
  const PeerKey key = LinkPeer::keys_of(1).public_key;
  {
    Pins pins(store);
    pins.pin(key, "kitchen");
    pins.add_ticket(open_ticket(ticket));
    pins.add_ticket(open_ticket(late));
  }
  Pins pins(store);
  ASSERT_TRUE(pins.find(key));
  EXPECT_EQ(pins.find(key)->name, "kitchen");
  EXPECT_EQ(pins.all().size(), 1u);
  EXPECT_EQ(pins.open_tickets(999).size(), 2u);
  ASSERT_EQ(pins.open_tickets(1000).size(), 1u) << "one has expired";
  EXPECT_EQ(pins.open_tickets(999).size(), 1u) << "and was forgotten";
  EXPECT_EQ(pins.open_tickets(1000)[0].one_time_key, one_time_keys(ticket).public_key);
  pins.spend_ticket(one_time_keys(ticket).public_key);
  EXPECT_TRUE(pins.open_tickets(0).empty());
  pins.unpin(key);
  EXPECT_FALSE(pins.find(key));
  store->scan("", [&](std::string_view, std::string_view) {
    ADD_FAILURE() << "something was left";
    return true;
  });
}

TEST(Pins, RecordsOfAnotherKindAreAnError) {
  const auto store = std::make_shared<MemoryStore>();
  store->put("pin/xyz", "1name");
  EXPECT_EQ(code_of([&] { Pins(store).all(); }), ErrorCode::kMalformed);
  store->erase("pin/xyz");
  store->put("ticket/" + std::string(64, '0'), "1soon");
  EXPECT_EQ(code_of([&] { Pins(store).open_tickets(0); }), ErrorCode::kMalformed);
  store->put("ticket/" + std::string(64, '0'), "9");
  EXPECT_EQ(code_of([&] { Pins(store).open_tickets(0); }), ErrorCode::kUnsupported);
}

TEST(Doorkeeper, KeepsABoundedNumberOfTickets) {
  Doorkeeper door;
  SeededRandom random(1);
  std::vector<PeerKey> keys(limits::kMaxOpenTickets + 1);
  for (size_t i = 0; i < keys.size(); ++i) {
    random.fill(keys[i].bytes);
    door.add_ticket({keys[i], static_cast<int64_t>(10'000 - i)});
  }
  EXPECT_EQ(door.judge(keys.back(), 0), Doorkeeper::Verdict::kStranger) << "it would have expired first";
  EXPECT_EQ(door.judge(keys.front(), 0), Doorkeeper::Verdict::kTicket);
}

TEST(Doorkeeper, BoundsTheLinesThatOthersCanCauseAndCountsTheRest) {
  Doorkeeper door;
  const PeerKey key = LinkPeer::keys_of(1).public_key;
  testing::internal::CaptureStderr();
  Time now{};
  for (int i = 0; i < 400; ++i, now += std::chrono::milliseconds(1)) {
    door.tell_broken(key, "it is of another version", now);
    if (i >= 100) door.refuse(key, "somewhere", now);
  }
  door.tell_broken(key, "once more", now);
  const std::string log = testing::internal::GetCapturedStderr();
  std::vector<std::string> lines;
  for (size_t at = 0, end; (end = log.find('\n', at)) != std::string::npos; at = end + 1)
    lines.push_back(log.substr(at, end - at));
  ASSERT_EQ(lines.size(), 5u) << log;
  const std::vector<std::string> broken = {"another version\" others_since=0",
                                           "another version\" others_since=199",
                                           "once more\" others_since=199"};
  for (size_t i = 0, of = 0; i < lines.size(); ++i)
    if (lines[i].find("protocol_broken") != std::string::npos)
      EXPECT_NE(lines[i].find(broken[of++]), std::string::npos) << lines[i];
    else
      EXPECT_NE(lines[i].find(i == 1 ? "others_since=0" : "others_since=199"), std::string::npos) << lines[i];
  EXPECT_EQ(door.refused(), 300u);
}

// --- Over real sockets ---

Ticket invite(LinkPeer& head, int64_t expires_unix = 0) {
  SystemRandom random;
  const Ticket ticket = make_ticket(head.key(), head.link->endpoints(), expires_unix, random);
  head.link->add_ticket(open_ticket(ticket));
  return ticket;
}

TEST(Enrolment, ATicketAdmitsOnePeerWhoIsPinnedAfter) {
  LinkPeer head(1), joiner(2), second(3);
  std::vector<std::string> admitted;
  head.admit = [&](const PeerKey& key, const std::string& name, const PeerKey&) {
    admitted.push_back(name + to_string(key));
  };
  const Ticket ticket = invite(head);
  ASSERT_EQ(joiner.enrol(parse_ticket(to_text(ticket))), "");
  EXPECT_EQ(admitted, std::vector<std::string>{"tester" + to_string(joiner.key())});
  joiner.connect(head);
  ASSERT_TRUE(joiner.log.wait_for<LinkUp>(head.key()));
  ASSERT_TRUE(head.log.wait_for<LinkUp>(joiner.key()));
  const auto refused = head.link->refused_strangers();
  EXPECT_NE(second.enrol(ticket).find("used, expired"), std::string::npos);
  EXPECT_GT(head.link->refused_strangers(), refused);
  second.connect(head);
  EXPECT_FALSE(second.log.wait_for<LinkUp>(head.key(), 1, std::chrono::milliseconds(200)));
  EXPECT_EQ(admitted.size(), 1u);
}

TEST(Enrolment, OfTwoWhoShowOneTicketAtOnceOneIsAdmitted) {
  LinkPeer head(1), a(2), b(3);
  const Ticket ticket = invite(head);
  std::string first, second;
  std::thread other([&] { second = b.enrol(ticket); });
  first = a.enrol(ticket);
  other.join();
  EXPECT_NE(first.empty(), second.empty()) << first << " / " << second;
}

TEST(Enrolment, AWrongSecretAnExpiredTicketAndAnUnknownOneAreRefused) {
  LinkPeer head(1), joiner(2);
  int admitted = 0;
  head.admit = [&](const PeerKey&, const std::string&, const PeerKey&) { ++admitted; };
  Ticket wrong = invite(head);
  wrong.secret.bytes[0] ^= 1;
  EXPECT_NE(joiner.enrol(wrong), "");
  EXPECT_NE(joiner.enrol(invite(head, head.clock.unix_seconds() - 1)), "");
  SystemRandom random;
  EXPECT_NE(joiner.enrol(make_ticket(head.key(), head.link->endpoints(), 0, random)), "");
  EXPECT_EQ(admitted, 0);
  EXPECT_GE(head.link->refused_strangers(), 3u);
  EXPECT_EQ(joiner.enrol(invite(head, head.clock.unix_seconds() + 60)), "");
  EXPECT_EQ(admitted, 1);
}

TEST(Enrolment, AOneTimeKeyIsGoodForNothingElse) {
  LinkPeer head(1);
  const Ticket ticket = invite(head);
  LinkPeer thief(9, [&](ZmqLinkOptions& options) { options.keys = one_time_keys(ticket); });
  thief.connect(head);
  while (head.link->refused_strangers() == 0) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  EXPECT_TRUE(thief.log.events().empty());
  EXPECT_TRUE(head.log.events().empty());
}

TEST(Enrolment, APinThatCannotBeKeptLeavesTheTicketGood) {
  LinkPeer head(1), joiner(2);
  bool is_full = true;
  const auto store =
      std::make_shared<MemoryStore>([&](MemoryStore::Operation, std::string_view) { return is_full; });
  Pins pins(store);
  head.admit = [&](const PeerKey& key, const std::string& name, const PeerKey& one_time_key) {
    pins.pin(key, name);
    pins.spend_ticket(one_time_key);
  };
  const Ticket ticket = invite(head);
  EXPECT_NE(joiner.enrol(ticket).find("a fault"), std::string::npos);
  is_full = false;
  EXPECT_EQ(joiner.enrol(ticket), "");
  EXPECT_TRUE(pins.find(joiner.key()));
}

TEST(Enrolment, TriesEveryAddressAndTellsWhenNoneAnswers) {
  LinkPeer head(1), joiner(2);
  Ticket ticket = invite(head);
  ticket.endpoints.insert(ticket.endpoints.begin(), "tcp://127.0.0.1:1");
  EXPECT_EQ(joiner.enrol(ticket), "");
  ticket.endpoints = {"tcp://127.0.0.1:1"};
  EXPECT_EQ(joiner.enrol(ticket), "nothing answers at its address");
}

}  // namespace
}  // namespace caravan
